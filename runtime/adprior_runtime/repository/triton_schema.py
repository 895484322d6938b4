"""Triton's ``ModelConfig`` message, which a ``config.pbtxt`` is the text of.

The schema is the file ``model_config.binpb`` of this package: Triton's ``model_config.proto`` as a
serialised ``FileDescriptorSet``. So the runtime needs protobuf of any version since 4.25, but not
tritonclient, which needs gRPC and an older protobuf than a GPU image may have. A test compares the
file with tritonclient's; ``tests/support/write_triton_schema.py`` writes it.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SCHEMA_FILE: Final = "model_config.binpb"
"""The file's name in the package ``adprior_runtime.repository``."""

_PACKAGE: Final = "inference"


def _read_schema() -> Any:
    """Return a pool of our own: the default one may hold tritonclient's message of that name."""
    pool = DescriptorPool()
    data = files("adprior_runtime.repository").joinpath(SCHEMA_FILE).read_bytes()
    for file in FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


_POOL: Final = _read_schema()


def _message(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


ModelConfig: Final[Any] = _message("ModelConfig")
ModelInput: Final[Any] = _message("ModelInput")
ModelInstanceGroup: Final[Any] = _message("ModelInstanceGroup")
ModelQueuePolicy: Final[Any] = _message("ModelQueuePolicy")

_DATA_TYPES: Final = _POOL.FindEnumTypeByName(f"{_PACKAGE}.DataType")


def data_type_number(dtype: str) -> int:
    """Return the value of ``data_type`` for a type by Triton's name without ``TYPE_``."""
    return int(_DATA_TYPES.values_by_name[f"TYPE_{dtype}"].number)


def data_type_name(number: int) -> str:
    """Return the inverse of `data_type_number`."""
    return str(_DATA_TYPES.values_by_number[number].name).removeprefix("TYPE_")
