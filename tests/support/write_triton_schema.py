"""Triton's schema of ``config.pbtxt`` as tritonclient has it, and the file that we keep of it.

``python -m support.write_triton_schema``, run in ``tests/``, writes it again after an update.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tritonclient.grpc import model_config_pb2

from support.paths import ROOT

SCHEMA: Final = ROOT / "runtime" / "adprior_runtime" / "repository" / "model_config.binpb"


def tritonclients_schema() -> Any:
    """Return the ``FileDescriptorProto`` of the installed tritonclient."""
    found = FileDescriptorProto()
    model_config_pb2.DESCRIPTOR.CopyToProto(found)
    return found


if __name__ == "__main__":
    SCHEMA.write_bytes(FileDescriptorSet(file=[tritonclients_schema()]).SerializeToString())
