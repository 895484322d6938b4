"""The report's section on interests, on a small bundle that was trained with them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adprior_bench.data.kept_results import keep_results
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.interests.experiment import run_interests
from adprior_bench.quality.interests.interest_cases import InterestCases
from adprior_bench.quality.interests.interest_forecasts import InterestForecasts
from adprior_bench.quality.model_forecasts import LanguageModel, forecast_identity
from adprior_bench.quality.study import Splits, Study
from adprior_bench.report.schema import Section
from adprior_build.catalogue.catalogue_file import Catalogue, read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_runtime.bundle import INTERESTS_FILE
from adprior_runtime.cli import main
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.forecast.interests import InterestCatalogue
from support.interests import TAIL, write_interests
from support.small_checkpoint import CUT, NAMES, SmallData, build

KINDS = [f"KIND_{letter}" for letter in "abcdefghijklmnop"]
INTERESTS = [f"kind {letter}" for letter in "abcdefghijklmno"]
"""All kinds but the last, in words."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    """Write 40 users of 14 events each, most of one kind; some days have two events."""
    data = SmallData.write(tmp_path_factory.mktemp("data"))
    random = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for user in range(40):
        for step in range(14):
            kind = KINDS[user % 16] if random.random() < 0.5 else KINDS[random.integers(16)]
            day = CUT + timedelta(days=7 * (step // 2 * 2 if user % 2 else step) - 45)
            brand = NAMES[int(random.integers(len(NAMES)))] if step != 12 else None
            rows.append({"who": f"user-{user}", "day": day, "brand": brand, "kind": kind})
    data.write_events(rows)
    data.write_profiles(40)
    template = json.loads((data.path("start") / "prompt.json").read_text())
    template |= {"interest_tail": TAIL, "max_prompt_tokens": 24}
    data.path("template.json").write_text(json.dumps(template))
    write_interests(data.path("interests.csv"), INTERESTS)
    return data


@pytest.fixture(scope="module")
def bundle(data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("built")
    interests = ["--interests", str(data.path("interests.csv"))]
    options = ["--template", str(data.path("template.json")), *interests]
    options += ["--test-share", "0.4", "--validation-share", "0.4"]
    assert data.train(place / "checkpoint", *options) == 0
    made = ["--checkpoint", str(place / "checkpoint"), "--save-bundle", str(place / "bundle")]
    assert build(place / "repository", *made, *interests) == 0
    return place / "bundle"


@pytest.fixture(scope="module")
def forecaster(bundle: Path) -> Forecaster:
    return Forecaster(bundle, threads=1)


@pytest.fixture(scope="module")
def study(data: SmallData, bundle: Path, forecaster: Forecaster) -> Study:
    return Study.read(
        Splits.recorded(forecaster.bundle.manifest.training),
        read_catalogue(bundle / "catalogue.parquet"),
        data.path("events.parquet"),
        data.path("profiles.parquet"),
        ColumnMap.load(data.path("columns.toml")),
        forecaster.renderer.name_ids,
    )


@pytest.fixture(scope="module")
def interests(bundle: Path) -> Catalogue:
    return read_catalogue(bundle / "interests.parquet", "interest")


def words(category: str | None) -> str:
    return (category or "").replace("_", " ").lower()


def kinds_of(study: Study, case: EncodedCase) -> tuple[list[str], set[str]]:
    """Return the interests of the earlier days in words, and those of the day."""
    events = study.histories[case.user.user_id].events
    day = study.context(case).as_of.date()
    past = [words(e.category) for e in events if e.time.date() < day]
    of_day = {words(e.category) for e in events if e.time.date() == day}
    return [name for name in past if name in INTERESTS], of_day & set(INTERESTS)


def recall_bounds(
    scores: Mapping[str, tuple[float, ...]], wanted: set[str], k: int
) -> tuple[float, float]:
    """Return recall@k with the worst and with the best order of ties."""
    orders = (
        sorted(scores, key=lambda name: (scores[name], (name in wanted) == helps), reverse=True)
        for helps in (False, True)
    )
    worst, best = (len(set(order[:k]) & wanted) / len(wanted) for order in orders)
    return worst, best


def rows_of(section: Section) -> dict[tuple[str, str], dict[str, Any]]:
    (found,) = section["content"]
    assert found["kind"] == "table"
    names = [column["title"] for column in found["columns"]]
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in found["rows"]]
    return {(row["interests"], row["ranker"]): row for row in rows}


def measured(forecaster: Forecaster, study: Study) -> Section | None:
    model = LanguageModel(forecasters=[forecaster])
    validation, test = model.forecast_groups(study, with_interests=True)
    assert model.interests is not None
    found = InterestForecasts(
        catalogue=model.interests, validation=validation.interests, test=test.interests
    )
    return run_interests(found, study, forecaster.renderer.name_ids, resamples=50)


def test_cases_have_the_days_interests_as_targets(
    study: Study, forecaster: Forecaster, interests: Catalogue
) -> None:
    found = InterestCases.of(study, interests, forecaster.renderer.name_ids)
    expected = [(case, kinds_of(study, case)) for case in study.test]
    expected = [(case, kinds) for case, kinds in expected if kinds[1]]
    assert [id(study.test[place]) for place in found.places] == [id(case) for case, _ in expected]
    assert 0 < len(found.cases) < len(study.test)
    for mine, (case, (past, of_day)) in zip(found.cases, expected, strict=True):
        assert (mine.day, mine.stop, mine.missed) == (case.day, case.stop, 0)
        assert {interests.names[row] for row in mine.targets} == of_day
        assert [interests.names[row] for row in mine.past[0]] == past
    assert any(len(mine.targets) > 1 for mine in found.cases)
    counts = Counter(words(e.category) for user in study.learnt for e in user.events)
    assert found.training.event_counts().tolist() == [counts[name] for name in interests.names]


def test_recall_is_that_of_served_interests_and_of_frequencies(
    study: Study, forecaster: Forecaster
) -> None:
    """Computed again without the benchmark's arrays; ties may have any order."""
    section = measured(forecaster, study)
    assert section is not None
    popular = Counter(words(e.category) for user in study.learnt for e in user.events)
    bounds: dict[str, list[tuple[float, float]]] = {"llm": [], "own_history": [], "popularity": []}
    for case in study.test:
        past, wanted = kinds_of(study, case)
        if not wanted:
            continue
        prompt = forecaster.prompt_ids(study.context(case))
        found = forecaster.forecast_interests(prompt, 1, 15)[1]
        own = Counter(past)
        scores: dict[str, dict[str, tuple[float, ...]]] = {
            "llm": {
                name.decode(): (value,)
                for name, value in zip(found.names, found.log_probs.tolist(), strict=True)
            },
            "own_history": {name: (own[name], popular[name]) for name in INTERESTS},
            "popularity": {name: (popular[name],) for name in INTERESTS},
        }
        for ranker, of in scores.items():
            bounds[ranker].append(recall_bounds(of, wanted, 5))
    rows = rows_of(section)
    for ranker, found_bounds in bounds.items():
        low, high = np.mean(found_bounds, axis=0)
        estimate = rows["all", ranker]["recall@5"]
        assert low - 1e-6 <= estimate.value <= high + 1e-6
        assert high - low < (1e-6 if ranker == "llm" else 0.1)
        assert estimate.low <= estimate.value <= estimate.high
    ours, theirs = (rows["all", name]["recall@10"].value for name in ("llm", "own_history"))
    minus = "llm minus this row, recall@10"
    assert rows["all", "own_history"][minus].value == pytest.approx(ours - theirs)
    assert rows["all", "llm"][minus] is None
    groups = ["all", "in the user's history", "new to the user"]
    assert list(rows) == [(group, ranker) for group in groups for ranker in bounds]


def test_interests_are_searched_once(
    study: Study, forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = forecast_identity(forecaster.bundle.manifest.bundle_id)
    with keep_results(tmp_path / "kept", identity, command="test") as kept:
        model = LanguageModel(forecasters=[forecaster], kept=kept)
        _, first = model.forecast_groups(study, with_interests=True)
        monkeypatch.setattr(InterestCatalogue, "search", lambda *_: pytest.fail("again"))
        validation, again = model.forecast_groups(study, with_interests=True)
    assert first.interests.tolist() == again.interests.tolist()
    assert (validation.interests.sum(axis=1) > 0).all()


def test_without_a_day_that_has_an_interest_nothing_is_measured(
    study: Study, forecaster: Forecaster, tmp_path: Path
) -> None:
    others = read_catalogue(write_interests(tmp_path / "others.csv", ["shoes"]), "interest")
    nothing = np.zeros((len(study.test), 1), dtype=np.float32)
    found = InterestForecasts(catalogue=others, validation=nothing, test=nothing)
    assert run_interests(found, study, forecaster.renderer.name_ids, resamples=10) is None


def test_an_advertiser_has_the_log_probability_of_its_category(interests: Catalogue) -> None:
    row = np.zeros((1, len(INTERESTS)), dtype=np.float32)
    row[0, :2] = 0.5, 0.125
    found = InterestForecasts(catalogue=interests, validation=row, test=2 * row)
    pair = found.of_advertisers(["KIND_a", "KIND_b", "KIND_c", "KIND_p", None])
    np.testing.assert_allclose(np.exp(pair[0]), [[0.5, *[0.125] * 4]])
    np.testing.assert_allclose(np.exp(pair[1]), [[1.0, *[0.25] * 4]])


def quality(data: SmallData, bundle: Path, *options: str) -> int:
    arguments = ["bench", "quality", "--bundle", str(bundle), *data.log_options()]
    arguments += ["--quick", "--threads", "1", "--validation-only"]
    return main([*arguments, "--json", *options])


def test_the_command_reports_interests_and_what_they_add(
    data: SmallData, bundle: Path, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert quality(data, bundle, "--sections", "interests", "stacking") == 0
    found = json.loads(capsys.readouterr().out)
    titles = [section["title"] for section in found["sections"]]
    assert titles[-2:] == ["Stacking", "Interests"]
    assert "stack_with_llm_and_interests" in json.dumps(found["sections"][-2])
    answers = {each["question"]: each["text"] for each in found["verdict"]}
    assert "With the model's interests too" in answers["Does the forecast add to LightGBM?"]
    (section,) = (each for each in found["sections"] if each["title"] == "Interests")
    assert "15 interests. `own_history` ranks" in section["notes"][0]
    assert f"Of {len(study.validation):,} cases" in section["notes"][0]


def test_a_bundle_without_interests_is_refused_when_asked_for_them(
    data: SmallData, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, plain = tmp_path / "checkpoint", tmp_path / "plain"
    without = shutil.ignore_patterns(INTERESTS_FILE)
    shutil.copytree(bundle.with_name("checkpoint"), checkpoint, ignore=without)
    options = ["--checkpoint", str(checkpoint), "--save-bundle", str(plain)]
    assert build(tmp_path / "repository", *options) == 0
    capsys.readouterr()
    assert quality(data, plain, "--sections", "interests") == 2
    error = capsys.readouterr().err
    assert f"{plain}: has no interests to measure (--sections interests)" in error
    assert error.count("\n") == 1
