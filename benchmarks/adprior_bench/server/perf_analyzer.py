"""Finds ``perf_analyzer``: on PATH, or a download in a cache.

tritonclient 2.48.0 is the last wheel whose binary runs on glibc below 2.38. The binary needs
``libcudart.so.12``, from another wheel, and Debian's ``libb64``. pip downloads both wheels, by
version and hash, and only on request.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adprior_client.config import PROXY_VARIABLES
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.files.atomic import replace_directory

_BINARY: Final = "perf_analyzer"
_VERSION: Final = "2.48.0"
_REQUIREMENTS: Final = f"""\
tritonclient=={_VERSION} \
--hash=sha256:7074885798e8a711fedaf94d6dd77f310973fe2ebf29fb2837db350a43e2d6a5
nvidia-cuda-runtime-cu12==12.9.79 \
--hash=sha256:25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3
"""
_MEMBERS: Final = (f".data/data/bin/{_BINARY}", "/lib/libcudart.so.12")
_FETCH: Final = "adprior bench server --fetch-perf-analyzer"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_SYSTEM_PACKAGES: Final = {"libb64.so.0d": "libb64-0d"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfAnalyzer:
    """A perf_analyzer that starts."""

    binary: Path
    version: str

    def environment(self, *, use_proxy: bool = True) -> dict[str, str]:
        """Return its environment variables: this process's, with its own libraries first.

        Like adprior's clients it calls a server on this machine without a proxy.
        """
        environment = _environment(self.binary)
        exempt = [environment.get("no_grpc_proxy") or environment.get("no_proxy", ""), *_LOOPBACK]
        environment["no_grpc_proxy"] = ",".join(filter(None, exempt))
        if use_proxy:
            return environment
        return {name: value for name, value in environment.items() if name not in PROXY_VARIABLES}


def cache_directory() -> Path:
    """Return the directory of a download, in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "adprior" / f"{_BINARY}-{_VERSION}"


def find_perf_analyzer(*, fetch: bool = False) -> PerfAnalyzer:
    """Return the first that starts: the perf_analyzer on PATH, then the downloaded one.

    With ``fetch``, download it if none starts.

    Raises:
        EnvironmentProblemError: None starts; the message says what to do.
    """
    on_path = shutil.which(_BINARY)
    fetched = cache_directory() / _BINARY
    found = [path for path in (on_path and Path(on_path), fetched) if path and path.is_file()]
    problems = []
    for binary in found:
        started = _start(binary)
        if isinstance(started, PerfAnalyzer):
            return started
        problems.append(f"{binary} does not start: {started}")
    if fetch:
        return fetch_perf_analyzer()
    if fetched not in found:
        problems.append(
            f"none on PATH that starts, none downloaded: `{_FETCH}` downloads that of tritonclient "
            f"{_VERSION} (17 MB) with pip"
        )
    raise EnvironmentProblemError(f"no {_BINARY}: {'; '.join(problems)}")


def fetch_perf_analyzer() -> PerfAnalyzer:
    """Download binary and library into the cache, and return them.

    Raises:
        EnvironmentProblemError: pip could not download them, or the binary does not start.
    """
    with tempfile.TemporaryDirectory(prefix="adprior-fetch-") as scratch:
        _download(Path(scratch))
        with replace_directory(cache_directory(), marker=_BINARY) as fresh:
            for wheel in sorted(Path(scratch).glob("*.whl")):
                _extract(wheel, fresh)
    return find_perf_analyzer()


def _download(directory: Path) -> None:
    requirements = directory / "requirements.txt"
    requirements.write_text(_REQUIREMENTS, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--dest", str(directory), "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise EnvironmentProblemError(
            f"pip could not download {_BINARY} (x86_64 Linux only): {_last_line(done.stderr)}"
        )


def _extract(wheel: Path, directory: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.endswith(_MEMBERS):
                target = directory / Path(member).name
                target.write_bytes(archive.read(member))
                target.chmod(0o755)


def _start(binary: Path) -> PerfAnalyzer | str:
    """Return the perf_analyzer, or why it does not start."""
    try:
        done = subprocess.run(  # noqa: S603
            [str(binary), "--version"],
            env=_environment(binary),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if found := re.search(r"Perf Analyzer Version (\S+)", done.stdout + done.stderr):
        return PerfAnalyzer(binary=binary, version=found[1])
    for library, package in _SYSTEM_PACKAGES.items():
        if library in done.stderr:
            return f"it needs {library}: apt-get install {package} (Debian, Ubuntu)"
    return _last_line(done.stderr) or f"exit status {done.returncode}"


def _environment(binary: Path) -> dict[str, str]:
    environment = dict(os.environ)
    if binary.parent == cache_directory():
        libraries = [str(binary.parent), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    return environment


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
