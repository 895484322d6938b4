"""Input files may begin with a byte-order mark, which some editors and exports write."""

from __future__ import annotations

from pathlib import Path

import pytest

from adprior_build.data.column_map import ColumnMap
from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_client import ClientConfig
from adprior_client.cli.documents import read_candidates
from adprior_runtime.prompt.template import PromptTemplate
from adprior_runtime.repository.tuning import load_tuning
from support.paths import DEMO, ROOT


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (ColumnMap.load, (DEMO / "columns.toml").read_text(encoding="utf-8")),
        (Deployment.load, (ROOT / "deploy" / "l4.toml").read_text(encoding="utf-8")),
        (load_tuning, "[tokenizer]\ninstances = 2\n"),
        (ClientConfig.from_toml, 'urls = ["localhost:8001"]\n'),
        (PromptTemplate.load, '{"terminator": "<end>", "max_prompt_tokens": 8}'),
        (lambda path: read_candidates(str(path)), '[{"advertiser_id": 1, "base_logit": 0.5}]'),
    ],
    ids=["column map", "deployment", "tuning", "client", "template", "candidates"],
)
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, read: object, text: str) -> None:
    assert callable(read)
    plain, marked = tmp_path / "plain", tmp_path / "marked"
    plain.write_text(text, encoding="utf-8")
    marked.write_text(text, encoding="utf-8-sig")
    assert read(marked) == read(plain)
