from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba.core import caching
from numba.core.registry import CPUDispatcher

import adprior_runtime
from adprior_runtime import compiled as module
from adprior_runtime.compiled import Int64Array, WrittenInt64, compiled
from adprior_runtime.search import expansion, outcome, ranking

READ_ONLY = np.arange(3)
READ_ONLY.flags.writeable = False


def _doubled(numbers: Int64Array, into: WrittenInt64, factor: float) -> int:
    for place, number in enumerate(numbers):
        into[place] = int(number * factor)
    return len(numbers)


def _functions() -> list[Any]:
    """Return the compiled functions of all modules that have some."""
    found = []
    for path in sorted(Path(adprior_runtime.__file__).parent.rglob("*.py")):
        if "adprior_runtime.compiled import" in path.read_text():
            relative = path.relative_to(Path(adprior_runtime.__file__).parent).with_suffix("")
            room = importlib.import_module(".".join(("adprior_runtime", *relative.parts)))
            found += [
                each
                for each in vars(room).values()
                if isinstance(each, CPUDispatcher) and each.py_func.__module__ == room.__name__
            ]
    return found


def test_a_function_takes_the_types_of_its_annotations() -> None:
    function, into = compiled(_doubled), np.zeros(3, dtype=np.int64)
    assert function(READ_ONLY, into, 2.0) == 3
    assert into.tolist() == [0, 2, 4]
    refused: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [
        (READ_ONLY.astype(np.int32), into),
        (np.arange(6)[::2], into),
        (READ_ONLY, READ_ONLY),
    ]
    for numbers, written in refused:
        with pytest.raises(TypeError, match="No matching definition"):
            function(numbers, written, 2.0)


def test_where_nothing_can_be_written_a_function_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    into = np.zeros(3, dtype=np.int64)
    assert module.compiled(_doubled)(READ_ONLY, into, 3.0) == 3
    assert into.tolist() == [0, 3, 6]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), EOFError()])
def test_where_the_kept_code_cannot_be_used_a_function_is_compiled_all_the_same(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise fault

    for name in ("load_overload", "save_overload"):
        monkeypatch.setattr(caching.Cache, name, fail)
    into = np.zeros(3, dtype=np.int64)
    assert module.compiled(_doubled)(READ_ONLY, into, 4.0) == 3
    assert into.tolist() == [0, 4, 8]


def test_a_compiled_function_takes_no_number_from_another_file() -> None:
    """Numba keeps the number in the code, and would not notice that it has changed."""
    for function in _functions():
        source = function.py_func
        tree = ast.parse(inspect.getsource(sys.modules[source.__module__]))
        imports = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
        imported = {alias.asname or alias.name for each in imports for alias in each.names}
        numbers = (
            name
            for name in imported & set(source.__code__.co_names)
            if isinstance(source.__globals__.get(name), int | float)
        )
        assert not list(numbers), source
    for room in (ranking, outcome):
        for name in {"OPEN", "FOUND", "EXCLUDED", "STEP_LOSS"} & {*vars(room)}:
            assert getattr(room, name) == getattr(expansion, name)


def test_a_compiled_function_calls_none_of_another_file() -> None:
    """Numba would not notice that the other file has changed."""
    functions = _functions()
    assert len(functions) > 15
    for function in functions:
        source = function.py_func
        for name in source.__code__.co_names:
            called = source.__globals__.get(name)
            if isinstance(called, CPUDispatcher):
                assert called.py_func.__module__ == source.__module__, (source, name)
