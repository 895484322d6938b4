"""Triton's schema of ``config.pbtxt``: the same as tritonclient's, which it replaces."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2

from adprior_runtime.repository import triton_schema
from adprior_runtime.repository.model_configs import parse_config
from support.paths import ROOT
from support.write_triton_schema import SCHEMA, tritonclients_schema

CONFIGS = sorted((ROOT / "model_repository").rglob("*.pbtxt"))


def test_the_file_is_the_schema_of_the_installed_tritonclient() -> None:
    (ours,) = FileDescriptorSet.FromString(SCHEMA.read_bytes()).file
    assert ours == tritonclients_schema()
    assert SCHEMA.name == triton_schema.SCHEMA_FILE


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_configuration_is_read_as_tritonclient_reads_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    theirs = text_format.Parse(text, model_config_pb2.ModelConfig())
    ours = parse_config(text)
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )


def test_data_types_have_tritons_names_and_numbers() -> None:
    for label, number in model_config_pb2.DataType.items():
        dtype = label.removeprefix("TYPE_")
        assert triton_schema.data_type_number(dtype) == number
        assert triton_schema.data_type_name(number) == dtype


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(text_format.ParseError, match='no field named "surprise"'):
        parse_config("surprise: 1")
