from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.contract import CPU_CONFIG_NAME
from adprior_runtime.errors import ArtefactError
from adprior_runtime.repository.served_configs import check_configs

COMMITTED = Path(__file__).parents[4] / "model_repository"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copytree(COMMITTED, tmp_path / "repo")
    return tmp_path / "repo"


@pytest.mark.parametrize("config_name", [CPU_CONFIG_NAME, None])
def test_what_is_committed_passes_on_both_targets(config_name: str | None) -> None:
    check_configs(COMMITTED, config_name)


def test_what_is_the_operators_may_change(repository: Path) -> None:
    path = repository / "llm_engine" / "configs" / "cpu.pbtxt"
    text = path.read_text()
    assert "count: 2" in text
    path.write_text(text.replace("count: 2", "count: 4"))
    check_configs(repository, CPU_CONFIG_NAME)


def _exchange(one: str, other: str) -> Callable[[Path], None]:
    def exchange(repository: Path) -> None:
        first, second = (repository / one).read_text(), (repository / other).read_text()
        (repository / one).write_text(second)
        (repository / other).write_text(first)

    return exchange


def _replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def replace(repository: Path) -> None:
        text = (repository / file).read_text()
        assert old in text
        (repository / file).write_text(text.replace(old, new))

    return replace


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no embedded configuration": (
        lambda repository: (repository / "advertiser_retrieval/configs/cpu.pbtxt").unlink(),
        r"advertiser_retrieval/configs/cpu\.pbtxt: no such file",
    ),
    "half a file": (
        lambda repository: (repository / "prior_head/config.pbtxt").write_text("input {\n  na"),
        r"prior_head/config\.pbtxt: not a model's configuration",
    ),
    "half of a file that is not served": (
        lambda repository: (repository / "llm_engine/config.pbtxt").write_text("input {"),
        r"llm_engine/config\.pbtxt: not a model's configuration",
    ),
    "an empty file": (
        lambda repository: (repository / "tokenizer/config.pbtxt").write_text(""),
        r"tokenizer/config\.pbtxt: name: found '', expected 'tokenizer'",
    ),
    "an empty file that is not served": (
        lambda repository: (repository / "llm_engine/config.pbtxt").write_text(""),
        r"llm_engine/config\.pbtxt: name: found '', expected 'llm_engine'",
    ),
    "no source": (
        lambda repository: (repository / "tokenizer/1/model.py").unlink(),
        r"tokenizer/1/model\.py: no such file",
    ),
    "another model's": (
        _exchange("tokenizer/config.pbtxt", "prior_head/config.pbtxt"),
        r"tokenizer/config\.pbtxt: name: found 'prior_head', expected 'tokenizer'",
    ),
    "the other target's": (
        _exchange("llm_engine/config.pbtxt", "llm_engine/configs/cpu.pbtxt"),
        r"llm_engine/configs/cpu\.pbtxt: backend: found tensorrtllm, expected python",
    ),
    "a step less": (
        _replace("advertiser_ranking/configs/cpu.pbtxt", '"prior_head"', '"tokenizer"'),
        r"advertiser_ranking/configs/cpu\.pbtxt: steps: found",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_no_build_wrote_is_refused(repository: Path, name: str) -> None:
    damage, told = DAMAGE[name]
    damage(repository)
    with pytest.raises(ArtefactError, match=told) as error:
        check_configs(repository, CPU_CONFIG_NAME)
    assert "\n" not in str(error.value)
