"""Functions that Numba compiles to machine code: small steps, too many for calls of NumPy.

A compiled function takes whole numbers, floats and arrays of one dimension, and calls no compiled
function and no number of another file: Numba compiles a function again only if its own file has
changed. It checks no bounds: callers check sizes. It is compiled when its module is imported, and
never while a request waits. The machine code is kept for later processes, beside the module or
where ``NUMBA_CACHE_DIR`` says. Where nothing can be written or read, each process compiles for
itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar, get_args, get_type_hints

import numba
import numpy as np
import numpy.typing as npt

_Function = TypeVar("_Function", bound=Callable[..., Any])
_WRITTEN: Final = "the function writes into this array"

Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
WrittenInt8 = Annotated[Int8Array, _WRITTEN]
WrittenInt32 = Annotated[Int32Array, _WRITTEN]
WrittenInt64 = Annotated[Int64Array, _WRITTEN]
WrittenFloat64 = Annotated[Float64Array, _WRITTEN]


def compiled(function: _Function) -> _Function:
    """Compile a function for the types in its annotations, as a decorator.

    Arrays are contiguous, of one dimension. Only those annotated as written may be written to, so
    that the others may be mapped files.
    """
    hints = get_type_hints(function, include_extras=True)
    signature = tuple(_numba_type(hints[name]) for name in inspect.signature(function).parameters)
    return _jit(function, signature)


def part_of_compiled(function: _Function) -> _Function:
    """Compile a function as part of the compiled functions of its file that call it."""
    made: _Function = numba.njit(function)
    return made


def _jit(function: _Function, signature: tuple[Any, ...]) -> _Function:
    made: _Function
    try:
        made = numba.njit(signature, cache=True)(function)
    except Exception:  # noqa: BLE001  no folder can be written, a disk is full, a file is cut off
        made = numba.njit(signature)(function)
    return made


def _numba_type(hint: Any) -> Any:
    """Return Numba's type of an annotation: ``int``, ``float`` or an array."""
    if hint in {int, float}:
        return numba.int64 if hint is int else numba.float64
    array, *notes = get_args(hint) if _WRITTEN in get_args(hint) else (hint,)
    dtype = get_args(get_args(array)[1])[0]
    element = numba.from_dtype(np.dtype(dtype))
    return numba.types.Array(element, 1, "C", readonly=not notes)
