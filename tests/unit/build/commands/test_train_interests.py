"""`adprior train --interests`: interests as targets at the ends of windows."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import Event, UserContext
from support.interests import TAIL, write_interests
from support.small_checkpoint import CUT, NAMES, SmallData, build

KINDS = ("DOG_FOOD", "TEA")
INTERESTS = ("dog food", "tea", "garden lamps")
TEACHING = ("--epochs", "12", "--learning-rate", "0.03", "--batch-size", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    """Write users of 15 events each whose category is their own."""
    data = SmallData.write(tmp_path_factory.mktemp("data"))
    data.write_events(
        [
            {
                "who": f"user-{user}",
                "day": CUT + timedelta(days=3 * step - 50),
                "brand": NAMES[user % 2],
                "kind": KINDS[user % 2],
            }
            for user in range(16)
            for step in range(15)
        ]
    )
    template = json.loads(data.path("start").joinpath("prompt.json").read_text())
    template |= {"interest_tail": TAIL, "max_prompt_tokens": 40}
    data.path("template.json").write_text(json.dumps(template))
    write_interests(data.path("interests.csv"), INTERESTS)
    return data


def train(data: SmallData, output: Path, *options: str, interests: bool = True) -> int:
    """Train with interests, or without."""
    more = ["--template", str(data.path("template.json")), "--validation-share", "0.3"]
    more += ["--interests", str(data.path("interests.csv"))] if interests else []
    return data.train(output, *more, *options)


def record_of(checkpoint: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((checkpoint / "training.json").read_text())
    return record


def right_log_prob(checkpoint: Path, *options: str) -> float:
    """Return the mean log-probability of the interest that each kind of user goes on with."""
    place = checkpoint.with_name(f"{checkpoint.name}-bundle")
    options = ("--checkpoint", str(checkpoint), "--save-bundle", str(place), *options)
    assert build(checkpoint.with_name(f"{checkpoint.name}-repository"), *options) == 0
    forecaster, day = Forecaster(place, threads=1), datetime(2024, 3, 1, tzinfo=UTC)
    found = []
    for brand, expected in zip(NAMES, INTERESTS[:2], strict=False):
        history = [
            Event(time=day - timedelta(days=3 * ago), action="purchase", advertiser=brand)
            for ago in (3, 2, 1)
        ]
        prompt = forecaster.prompt_ids(UserContext(profile={}, history=history, as_of=day))
        interests = forecaster.forecast_interests(prompt, 3, 3)[1]
        of = dict(zip(interests.names, interests.log_probs.tolist(), strict=True))
        found.append(of[expected.encode()])
    return float(np.mean(found))


def test_a_model_trained_on_interests_forecasts_them_better(
    data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path / "plain", *TEACHING, interests=False) == 0
    assert "nats an interest" not in capsys.readouterr().out
    assert train(data, tmp_path / "taught", *TEACHING) == 0
    told = capsys.readouterr().out
    plain, taught = record_of(tmp_path / "plain"), record_of(tmp_path / "taught")
    losses = [row["validation_interest"] for row in taught["losses"]]
    assert losses[-1] < losses[0] / 2
    assert f"{losses[0]:.3f} nats an interest" in told
    assert all("validation_interest" not in row for row in plain["losses"])
    path = data.path("interests.csv")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert taught["inputs"]["interests"] == {"file": path.name, "sha256": digest}
    counts = taught["interests"]
    assert counts["catalogue"] == len(INTERESTS)
    assert min(counts.values()) > 0
    assert f"{counts['training_examples']} windows end with an interest" in told
    assert "--interests interests.csv" in taught["command"]
    assert not {"interests"} & (plain.keys() | plain["inputs"].keys())
    before = right_log_prob(tmp_path / "plain", "--interests", str(path))
    after = right_log_prob(tmp_path / "taught")  # takes the interests that it has learnt
    assert after > before + 10


@pytest.mark.parametrize("upper", [None, "1"])
def test_a_stopped_training_goes_on_with_its_interests_only(
    data: SmallData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    upper: str | None,
) -> None:
    from adprior_build.training.state import StateKeeper  # noqa: PLC0415  torch

    options = ["--lora-rank", "2", "--merge", "--epochs", "3"]
    options += [] if upper is None else ["--upper-layers", upper]
    assert train(data, tmp_path / "unbroken", *options) == 0
    save = StateKeeper.save

    def save_and_stop(self: StateKeeper, *state: Any) -> None:
        save(self, *state)
        raise KeyboardInterrupt

    monkeypatch.setattr(StateKeeper, "save", save_and_stop)
    assert train(data, tmp_path / "out", *options) != 0
    monkeypatch.undo()
    capsys.readouterr()
    assert train(data, tmp_path / "out", *options, interests=False) == 2
    assert "holds the state of another training (interests " in capsys.readouterr().err
    assert train(data, tmp_path / "out", *options) == 0
    names = ("unbroken", "out")
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in names)
    assert first == second
    assert record_of(tmp_path / "out")["losses"] == record_of(tmp_path / "unbroken")["losses"]


def test_a_trimmed_vocabulary_keeps_interests_and_their_tail(
    data: SmallData, tmp_path: Path
) -> None:
    options = ["--lora-rank", "2", "--trim-vocabulary", "1"]
    assert train(data, tmp_path / "adapter", *options) == 0
    kept = np.load(tmp_path / "adapter" / "vocabulary.npy")
    start, tokenizer = (
        Tokenizer.from_file(str(place / "tokenizer.json"))
        for place in (data.path("start"), tmp_path / "adapter")
    )
    for text in (*INTERESTS, *TAIL):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert kept[ids].tolist() == start.encode(text, add_special_tokens=False).ids


def refused(
    data: SmallData, output: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> str:
    """Run a training that must be refused; return its one line of error."""
    assert train(data, output, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("adprior train: ")
    assert error.count("\n") == 1
    assert not output.exists()
    return error


def test_what_cannot_be_learnt_is_refused(
    data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = json.loads(data.path("template.json").read_text())

    def with_template(**changed: Any) -> list[str]:
        path = tmp_path / f"{next(iter(changed))}.json"
        path.write_text(json.dumps(template | changed))
        return ["--template", str(path)]

    def with_interests(*names: str) -> list[str]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        return ["--interests", str(write_interests(path, names))]

    for options, message in (
        (with_template(interest_tail=[]), "the prompt template has no interest_tail"),
        (with_template(max_prompt_tokens=500), "max_prompt_tokens 500 and a name of"),
        (with_interests("shoes"), "no interest to learn"),
        (with_interests("Tea", "Tea"), "have the same name"),
        (with_interests(" "), "has an empty name"),
        (["--interests", str(data.path("catalogue.parquet"))], "interest_id"),
    ):
        assert message in refused(data, tmp_path / "out", capsys, *options)
