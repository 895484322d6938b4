"""Finds the tritonserver to run: the one on PATH, else the one in the package nvidia-pytriton.

The package's wheel contains the binary, the Python backend and one stub for each Python version.
They are copied into a directory with the layout that the server expects. The needs of the server
are checked first, because its own messages do not name the cause.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError

_PACKAGE: Final = "nvidia-pytriton"
_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_LIBPYTHON: Final = f"libpython{_PYTHON}.so.1.0"
_LEAST_GLIBC: Final = (2, 35)
_SYSTEM_LIBRARIES: Final = (
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/lib",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A tritonserver that can be started.

    Attributes:
        binary: The executable.
        libraries: Directories to put first in ``LD_LIBRARY_PATH``.
        backend_files: Files of the Python backend; empty if the server has its own backends.
    """

    binary: Path
    libraries: tuple[Path, ...] = ()
    backend_files: tuple[Path, ...] = ()

    @property
    def is_embedded(self) -> bool:
        """Whether it is the server of the wheel, which has the Python backend only."""
        return bool(self.backend_files)

    def environment(self) -> dict[str, str]:
        """Return this process's environment, with this Python and the libraries first."""
        environment = dict(os.environ)
        # The Python backend's stub runs the first python3 of PATH.
        search = [str(Path(sys.executable).parent), environment.get("PATH", "")]
        environment["PATH"] = os.pathsep.join(filter(None, search))
        if self.libraries:
            libraries = [*map(str, self.libraries), environment.get("LD_LIBRARY_PATH", "")]
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
        # NumPy's library would start one thread for each core in each model's process. Our models
        # do not need them: they do not multiply matrices with NumPy.
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")
        return environment

    def copy_backends(self, directory: Path, further: Sequence[Path] = ()) -> None:
        """Fill a directory for ``--backend-directory``.

        Args:
            directory: The directory to make.
            further: More backends, written in Python. Each is a directory with the backend's name
                that contains its ``model.py``.

        Raises:
            InvalidInputError: A backend has no ``model.py``.
        """
        python = directory / "python"
        python.mkdir(parents=True)
        for file in self.backend_files:
            # Copied: the server refuses links that lead out of a backend written in Python.
            shutil.copy(file, python / file.name)
        for backend in further:
            if not (backend / "model.py").is_file():
                raise InvalidInputError(f"{backend}: not a backend written in Python (no model.py)")
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(backend, directory / backend.name, ignore=ignored)


def find_installation() -> Installation:
    """Find the tritonserver on PATH, else the embedded one.

    Raises:
        EnvironmentProblemError: There is none, or this machine cannot run the embedded one; the
            message says what to do.
    """
    on_path = shutil.which("tritonserver")
    return Installation(binary=Path(on_path)) if on_path else _find_embedded()


def _find_embedded() -> Installation:
    _check_platform()
    package = _find_package()
    _check_numpy()
    server = package / "tritonserver"
    backend = server / "backends" / "python"
    stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        raise EnvironmentProblemError(
            f"the embedded tritonserver has no stub for Python {_PYTHON}: use Python 3.11 or 3.12"
        )
    return Installation(
        binary=server / "bin" / "tritonserver",
        libraries=(package.parent / "nvidia_pytriton.libs", _find_libpython()),
        backend_files=(*(file for file in backend.iterdir() if file.is_file()), stub),
    )


def _check_platform() -> None:
    libc, release = platform.libc_ver()
    found = f"{sys.platform} {platform.machine()}, {libc or 'no glibc'} {release}".rstrip()
    glibc = tuple(int(part) for part in release.split(".")[:2] if part.isdigit())
    if (
        sys.platform != "linux"
        or platform.machine() != "x86_64"
        or libc != "glibc"
        or glibc < _LEAST_GLIBC
    ):
        raise EnvironmentProblemError(
            "no tritonserver on PATH, and the embedded one needs Linux x86_64 with "
            f"glibc {_LEAST_GLIBC[0]}.{_LEAST_GLIBC[1]} or later; this is {found}"
        )


def _find_package() -> Path:
    spec = find_spec("pytriton")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "tritonserver" / "bin" / "tritonserver").is_file():
            return Path(place)
    raise EnvironmentProblemError(
        f"no tritonserver on PATH, and the package {_PACKAGE} is not installed: "
        "pip install 'adprior[embedded]'"
    )


def _check_numpy() -> None:
    try:
        found = version("numpy")
    except PackageNotFoundError:
        raise EnvironmentProblemError("needs the package numpy: pip install 'numpy<2'") from None
    if int(found.partition(".")[0]) >= 2:
        raise EnvironmentProblemError(
            f"NumPy {found} is installed, and with NumPy 2 the embedded tritonserver silently "
            "returns empty tensors: pip install 'numpy<2'"
        )


def _find_libpython() -> Path:
    """Return the directory with the library that the stub is linked to."""
    for directory in _library_directories():
        if (directory / _LIBPYTHON).is_file():
            return directory
    raise EnvironmentProblemError(
        f"the embedded tritonserver needs {_LIBPYTHON}, which this Python does not have: "
        f"apt-get install libpython{_PYTHON} (Debian, Ubuntu), or use a Python built with "
        "--enable-shared"
    )


def _library_directories() -> Iterator[Path]:
    """Yield the directories that may have a shared libpython, the running Python's first."""
    yield Path(sys.base_prefix) / "lib"
    for name in ("LIBDIR", "LIBPL"):
        if value := sysconfig.get_config_var(name):
            yield Path(value)
    for value in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        if value:
            yield Path(value)
    yield from map(Path, _SYSTEM_LIBRARIES)
