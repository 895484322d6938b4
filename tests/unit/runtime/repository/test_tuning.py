from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adprior_runtime import contract
from adprior_runtime.cli import main
from adprior_runtime.contract import EXACT_TARGETS, Target
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.repository import model_specs
from adprior_runtime.repository.checker import check_repository
from adprior_runtime.repository.model_configs import parse_config, render
from adprior_runtime.repository.model_specs import ModelTuning
from adprior_runtime.repository.tuning import TUNED_MODELS, format_tuning, load_tuning, read_tuning

TUNED = {
    contract.TOKENIZER: ModelTuning(instances=4, max_queue_delay_us=0),
    contract.LLM_ENGINE: ModelTuning(
        instances=3, max_batch_size=4, max_queue_delay_us=100, threads=2
    ),
}


def _given(name: str) -> ModelTuning:
    return model_specs.model(name, Target.CPU).tuning


def test_a_written_file_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "tuning.toml"
    file.write_text(format_tuning(TUNED, "found by\na sweep"))
    assert load_tuning(file) == TUNED
    assert file.read_text().startswith("# found by\n# a sweep\n\n[tokenizer]\n")


def test_a_file_may_set_a_single_value(tmp_path: Path) -> None:
    file = tmp_path / "tuning.toml"
    file.write_text("[prior_head]\ninstances = 4\n")
    assert load_tuning(file) == {
        contract.PRIOR_HEAD: replace(_given(contract.PRIOR_HEAD), instances=4)
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instances = ", "not a tuning file"),
        ("[engine]\ninstances = 2", "unknown engine; expected tables of tokenizer, llm_engine"),
        ("[advertiser_ranking]\ninstances = 2", "unknown advertiser_ranking"),
        ("llm_engine = 2", r"\[llm_engine\]: found 2, expected a table"),
        ("[llm_engine]\ninstance = 2", "unknown instance; expected instances, max_batch_size"),
        ("[tokenizer]\nthreads = 2", "unknown threads; expected instances, max_batch_size"),
        ("[advertiser_decoder]\nmax_queue_delay_us = 0", "unknown max_queue_delay_us; expected"),
        ("[llm_engine]\ninstances = 0", "instances is 0, expected a whole number, 1 to 256"),
        ("[llm_engine]\nthreads = -1", "threads is -1, expected a whole number, 0 to 1024"),
        ("[llm_engine]\ninstances = true", "instances is True, expected a whole number"),
        ("[llm_engine]\ninstances = 2.0", "instances is 2.0, expected a whole number"),
        ("[llm_engine]\nmax_batch_size = 65", "max_batch_size is 65, expected a whole .* 1 to 64"),
        ("[llm_engine]\nmax_queue_delay_us = '5'", "max_queue_delay_us is '5'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "tuning.toml"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_tuning(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TUNED_MODELS)
def test_a_configuration_is_read_as_it_was_rendered(name: str) -> None:
    expected = TUNED.get(name, _given(name))
    config = parse_config(render(name, Target.CPU, TUNED))
    assert read_tuning(name, config) == expected
    assert config.instance_group[0].count == expected.instances
    assert config.max_batch_size == expected.max_batch_size
    if not model_specs.model(name, Target.CPU).is_queued:
        assert not config.HasField("dynamic_batching")
        return
    assert config.dynamic_batching.max_queue_delay_microseconds == expected.max_queue_delay_us
    assert config.dynamic_batching.default_queue_policy.max_queue_size == contract.MAX_QUEUE_SIZE


def test_an_ensemble_has_the_smallest_batch_of_its_steps() -> None:
    for name in (contract.ADVERTISER_RETRIEVAL, contract.ADVERTISER_RANKING):
        assert parse_config(render(name, Target.CPU, TUNED)).max_batch_size == 4


def test_what_a_file_does_not_set_is_the_configurations_own(tmp_path: Path) -> None:
    file = tmp_path / "tuning.toml"
    file.write_text("[llm_engine]\nmax_queue_delay_us = 7\n")
    for target in EXACT_TARGETS:
        tuning = load_tuning(file, target)
        given = model_specs.model(contract.LLM_ENGINE, target).tuning
        assert tuning == {contract.LLM_ENGINE: replace(given, max_queue_delay_us=7)}
        config = parse_config(render(contract.LLM_ENGINE, target, tuning))
        assert read_tuning(contract.LLM_ENGINE, config, target) == tuning[contract.LLM_ENGINE]
        assert config.instance_group[0].count == (1 if target is Target.CUDA else 2)


def test_tuning_does_not_change_production() -> None:
    for name in contract.MODEL_NAMES:
        assert render(name, Target.TENSORRT_LLM, TUNED) == render(name, Target.TENSORRT_LLM)


def test_a_tuned_repository_is_built_and_checked_against_its_tuning(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    file, repository = tmp_path / "tuning.toml", tmp_path / "repository"
    file.write_text(format_tuning(TUNED))
    build = ["build", "--bundle", str(tiny_bundle), "--output", str(repository)]
    assert main([*build, "--tuning", str(file)]) == 0
    assert check_repository(repository) == []
    for name, expected in TUNED.items():
        for target in EXACT_TARGETS:
            text = (repository / name / target.config_file).read_text()
            assert read_tuning(name, parse_config(text), target) == expected
        assert (repository / name / "config.pbtxt").read_text() != text
    config = repository / contract.LLM_ENGINE / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 4", "max_batch_size: 99"))
    findings = [finding.found for finding in check_repository(repository)]
    assert "max_batch_size: 99" in findings
