from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from adprior_bench.quality.ablations import ABLATIONS, CASES
from adprior_bench.quality.baselines import tuning
from adprior_bench.quality.evaluation import evaluate
from adprior_bench.quality.evaluation_settings import Settings
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.histories import EncodedCase, draw_cases
from adprior_bench.quality.model_forecasts import LanguageModel
from adprior_bench.quality.study import Splits, Study
from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_runtime.cli import main
from adprior_runtime.forecast.decode_step import DecodeStep
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.forecast.search_step import SearchStep
from support.data_set import COLUMNS
from support.small_checkpoint import CUT, NAMES, SmallData, invented_events

BRANDS = [*NAMES, *(f"Brand {letter}" for letter in "abcdefghijklmnopqr")]
"""More than the ten that recall looks at."""
NEWCOMER = "Fresh Pet Snacks"
"""Nobody acts on it before the cut."""
CATALOGUE = [*BRANDS, NEWCOMER]

SPLIT = ("--test-share", "0.4", "--validation-share", "0.4")
SECTIONS = [
    "Evaluation protocol",
    "Tuning",
    "Forecasts",
    "Repeats and new advertisers",
    "Stacking",
    "Retrieval",
    "Ranking on a simulated log",
    "Prompt ablations",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    """80 users, whose items follow their advertisers."""
    data = SmallData.write(tmp_path_factory.mktemp("data"))
    ids = [*range(101, 101 + len(CATALOGUE))]
    data.write_catalogue({"advertiser_id": ids, "name": CATALOGUE})
    random = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for user in range(80):
        favourite = BRANDS[user % len(BRANDS)]
        for step in range(12):
            brand = favourite if random.random() < 0.6 else BRANDS[random.integers(len(BRANDS))]
            brand = NEWCOMER if step == 10 and user % 3 == 0 else brand
            rows.append(
                {
                    "who": f"user-{user}",
                    "day": CUT + timedelta(days=7 * step - 45 + user % 5),
                    "brand": brand,
                    "kind": "FOOD" if CATALOGUE.index(brand) % 2 else "PETS",
                    "title": f"{brand} thing {random.integers(4)}",
                    "sku": f"{brand}-{random.integers(4)}",
                }
            )
    data.write_events(rows)
    profiles = [{"who": f"user-{user}", "age": f"{user % 5}0s"} for user in range(80)]
    pa.parquet.write_table(pa.Table.from_pylist(profiles), data.path("profiles.parquet"))
    columns = COLUMNS.replace(
        'category = "kind"\n', 'category = "kind"\ntext = "title"\nitem = "sku"\n'
    )
    data.path("columns.toml").write_text(columns, encoding="utf-8")
    return data


@pytest.fixture(scope="module")
def bundle(data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.save_bundle(tmp_path_factory.mktemp("built"), *SPLIT)


def run(data: SmallData, bundle: Path, *options: str) -> int:
    arguments = ["bench", "quality", "--bundle", str(bundle), *data.log_options()]
    return main([*arguments, "--quick", "--threads", "1", *options])


@pytest.fixture(scope="module")
def report(data: SmallData, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's directory."""
    output = tmp_path_factory.mktemp("reports") / "report"
    assert run(data, bundle, "--output", str(output)) == 0
    return output


def load(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((report / "report.json").read_text(encoding="utf-8"))
    return found


def table(report: dict[str, Any], title: str) -> list[dict[str, Any]]:
    """Return a table's rows, by column."""
    (found,) = (
        item
        for section in report["sections"]
        for item in section["content"]
        if item["kind"] == "table" and item["title"].startswith(title)
    )
    columns = [column["title"] for column in found["columns"]]
    return [dict(zip(columns, row, strict=True)) for row in found["rows"]]


def test_the_report_has_all_sections_and_files(report: Path) -> None:
    assert [section["title"] for section in load(report)["sections"]] == SECTIONS
    names = {path.name for path in report.iterdir()}
    assert {"report.json", "report.md", "report.html", "recall.png", "reliability.png"} <= names
    assert {"ranking.png", "retrieval_50.png", "retrieval_100.png"} <= names
    for section in SECTIONS:
        assert f"## {section}" in (report / "report.md").read_text(encoding="utf-8")
        assert section in (report / "report.html").read_text(encoding="utf-8")


def test_the_report_opens_with_warnings_and_a_verdict(report: Path) -> None:
    found = load(report)
    assert [warning.split(":")[0] for warning in found["warnings"]] == ["Quick run"]
    assert (found["data"]["quick"], found["data"]["resamples"]) == (True, 100)
    assert found["data"]["log"]["is_training_log"] is True
    assert found["data"]["split"]["cut"] == CUT.isoformat()
    answers = {each["question"]: each for each in found["verdict"]}
    assert list(answers) == [
        "Does the model find advertisers new to the user?",
        "Does the model find advertisers that nobody has acted on yet?",
        "Does the forecast add to LightGBM?",
        "Does the forecast improve retrieval?",
        "Does the forecast improve ranking?",
        "Is the forecast calibrated?",
    ]
    rows = {row["forecast in the head"]: row for row in table(found, "Rankers on the sim")}
    gain = rows["llm"]["PR-AUC, change"]["value"]
    assert (
        f"PR-AUC by {100 * gain:+.2f} % [" in answers["Does the forecast improve ranking?"]["text"]
    )
    for name, first in (
        ("report.md", "## Evaluation protocol"),
        ("report.html", "Evaluation protocol</h2>"),
    ):
        text = (report / name).read_text(encoding="utf-8")
        places = [text.index(words) for words in ("Quick run: only one", *answers, first)]
        assert places == sorted(places)
        assert text.rindex("Prompt ablations") < text.rindex("Forecasts: details")


def test_the_report_speaks_of_the_logs_own_actions(report: Path) -> None:
    found = load(report)
    answers = {each["question"]: each["text"] for each in found["verdict"]}
    assert "advertisers of the day's events" in answers["Does the forecast improve retrieval?"]
    text = (report / "report.json").read_text(encoding="utf-8").lower()
    assert not [word for word in ("purchas", "bought", "buys", "brand") if word in text]
    (retrieval,) = (each for each in found["sections"] if each["title"] == "Retrieval")
    assert "product" not in json.dumps(retrieval)


def study_of(data: SmallData, bundle: Path) -> tuple[Forecaster, Study]:
    forecaster = Forecaster(bundle, threads=1)
    study = Study.read(
        Splits.recorded(forecaster.bundle.manifest.training),
        read_catalogue(bundle / "catalogue.parquet"),
        data.path("events.parquet"),
        data.path("profiles.parquet"),
        ColumnMap.load(data.path("columns.toml")),
    )
    return forecaster, study


def test_recall_is_that_of_served_forecasts(data: SmallData, bundle: Path, report: Path) -> None:
    """Computed again without the benchmark's arrays."""
    forecaster, study = study_of(data, bundle)
    shares = []
    for case in study.test:
        names = forecaster.forecast(study.context(case), 5).names
        wanted = {study.catalogue.names[row] for row in case.targets}
        shares.append(len(wanted & {name.decode() for name in names}) / len(wanted))
    rows = {row["ranker"]: row for row in table(load(report), "Cohort: all")}
    assert rows["llm"]["recall@5"]["value"] == pytest.approx(np.mean(shares))
    counts = table(load(report), "Users and cases")
    assert [row["cases"] for row in counts] == [None, len(study.validation), len(study.test)]


def test_forecasts_are_distributions_and_altered_prompts_differ(
    data: SmallData, bundle: Path
) -> None:
    forecaster, study = study_of(data, bundle)
    cases: Sequence[Any] = study.validation[:5]
    model = LanguageModel(forecasters=[forecaster])
    whole = model.forecast(study, cases).probabilities
    assert (whole >= 0).all()
    assert (whole.sum(axis=1) <= 1 + 1e-5).all()
    for name, alter in ABLATIONS.items():
        altered = model.forecast(study, cases, alter=alter).probabilities
        # The bundle's template shows profile and advertisers, no category and no text.
        assert np.allclose(altered, whole) == (name == "no categories, no text")


def test_forecasts_made_at_once_are_those_made_one_by_one(data: SmallData, bundle: Path) -> None:
    forecaster, study = study_of(data, bundle)
    one, two = (
        LanguageModel(forecasters=chosen).forecast(study, study.validation[:6])
        for chosen in ([forecaster], [forecaster, Forecaster(bundle, threads=1)])
    )
    assert one.probabilities.tolist() == two.probabilities.tolist()
    assert one.exact.tolist() == two.exact.tolist()


def test_recall_of_new_advertisers_is_that_of_forecasts_without_the_history(
    data: SmallData, bundle: Path, report: Path
) -> None:
    """Computed again with the search's exclusions, as a client asks for it."""
    forecaster, study = study_of(data, bundle)
    search, decode = SearchStep(forecaster.bundle, threads=1), DecodeStep.load(forecaster.bundle)
    shares = []
    for case in study.test:
        history = {
            event.advertiser for event in study.histories[case.user.user_id].events[: case.stop]
        }
        wanted = {study.catalogue.names[row] for row in case.targets} - history
        if not wanted:
            continue
        excluded = [101 + CATALOGUE.index(name) for name in history if name]
        prompt = forecaster.prompt_ids(study.context(case))
        found = search.run(prompt, top_k=5, excluded_ids=np.array(excluded, dtype=np.int64))
        names = decode.run(found.beams, top_k=5).names
        shares.append(len(wanted & {name.decode() for name in names}) / len(wanted))
    rows = {row["ranker"]: row for row in table(load(report), "Recall of new advertisers")}
    assert rows["llm"]["recall@5"]["value"] == pytest.approx(np.mean(shares))


def test_falsifiers_and_rivals_go_through_the_same_head(report: Path) -> None:
    rows = {row["forecast in the head"]: row for row in table(load(report), "Rankers on the sim")}
    assert {"base", "reference", "llm", "random", "shuffled", "popularity", "sasrec"} <= set(rows)
    assert rows["reference"]["AUC"]["value"] == pytest.approx(rows["base"]["AUC"]["value"])
    assert rows["reference"]["PR-AUC, change"] is None
    gain = rows["llm"]["PR-AUC"]["value"] / rows["reference"]["PR-AUC"]["value"] - 1
    assert rows["llm"]["PR-AUC, change"]["value"] == pytest.approx(gain)
    # The bundle was built without a head: there is none of its own to measure.
    assert "shipped_head" not in rows
    assert "The bundle has no head of its own yet" in (report / "report.md").read_text("utf-8")


def known_to(case: EncodedCase) -> frozenset[int]:
    return frozenset(case.past[0].tolist())


def test_newcomers_are_counted_and_ranked_by_text(report: Path) -> None:
    found = load(report)
    (title,) = (
        item["title"]
        for section in found["sections"]
        for item in section["content"]
        if item["title"].startswith("Recall of newcomers")
    )
    groups = table(found, "New advertisers by how often")
    counts = {row["training events"]: row["advertisers acted on"] for row in groups}
    assert f"newcomers: {counts['0: newcomers']} advertisers" in title
    assert counts["0: newcomers"] > 0
    rows = {row["ranker"]: row for row in table(found, "Recall of newcomers")}
    assert {"llm", "text_embedding", "category_popularity", "popularity"} <= set(rows)
    assert rows["text_embedding"]["recall@50"]["value"] == 1  # the catalogue has fewer


def test_a_killed_evaluation_continues_to_the_same_report(
    data: SmallData,
    bundle: Path,
    report: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The engine computes only what is not kept, and each prompt only once."""
    settings = Settings(quick=True, resamples=100, threads=1, work=tmp_path / "kept")
    computed: list[Any] = []
    limit, forecast = 50, Forecaster.forecast_catalogue

    def counted(forecaster: Forecaster, prompt: Any, **options: Any) -> Any:
        if len(computed) == limit:
            raise KeyboardInterrupt
        computed.append(prompt)
        return forecast(forecaster, prompt, **options)

    monkeypatch.setattr(Forecaster, "forecast_catalogue", counted)
    events, profiles, columns = (
        data.path(name) for name in ("events.parquet", "profiles.parquet", "columns.toml")
    )
    with pytest.raises(KeyboardInterrupt), evaluate(bundle, events, profiles, columns, settings):
        pass
    first = len(computed)
    limit = 10**6
    computed.clear()
    capsys.readouterr()
    with evaluate(bundle, events, profiles, columns, settings) as found:
        again = found
    assert "results kept in" in capsys.readouterr().err
    forecaster, study = study_of(data, bundle)
    asked = [(study.context(c), known_to(c)) for c in (*study.validation, *study.test)]
    is_newcomer = study.training.event_counts() == 0
    among_newcomers = Explore.of(study.test, is_newcomer).cases
    drawn = draw_cases(study.test, CASES)
    for alter in ABLATIONS.values():
        asked += [(alter(study.context(case)), known_to(case)) for case in drawn]
    distinct = {(tuple(forecaster.prompt_ids(context)), known) for context, known in asked}
    distinct |= {
        (tuple(forecaster.prompt_ids(study.context(case))), known_to(case) | {-1})
        for case in among_newcomers
    }
    assert first + len(computed) == len(distinct)
    assert not (tmp_path / "kept").exists()
    titles = ("Paired differences", "Cohort: all", "Rankers on the simulated")

    def comparable(found: Any) -> Any:
        return json.loads(json.dumps([table(found, title) for title in titles], default=vars_of))

    def vars_of(value: Any) -> dict[str, float]:
        return {name: float(getattr(value, name)) for name in ("value", "low", "high")}

    assert comparable(again) == comparable(load(report))


def test_test_users_influence_no_choice(
    data: SmallData, bundle: Path, report: Path, tmp_path: Path
) -> None:
    """Settings, shares, quotas, heads and validation figures do not depend on test users."""
    splits = Splits.recorded(Forecaster(bundle).bundle.manifest.training)
    rows = pyarrow.parquet.read_table(data.path("events.parquet")).to_pylist()
    changes = {"brand": BRANDS[3], "kind": "OTHER", "title": "another thing", "sku": "another"}
    changed = [row | changes if splits.group_of(row["who"]) == "test" else row for row in rows]
    assert changed != rows
    shutil.copytree(data.directory, tmp_path / "data")
    other = SmallData(directory=tmp_path / "data")
    other.write_events(changed)
    assert run(other, bundle, "--other-log", "--output", str(tmp_path / "report")) == 0

    def chosen(found: dict[str, Any]) -> list[Any]:
        whole = (
            "Settings of the conventional retriever",
            "Settings of stacks",
            "Head of each forecast",
            "Features of the base ranker",
        )
        parts = {
            "Rankers on validation": (
                "settings tried",
                "chosen settings",
                "recall@10",
                "llm minus this row",
            ),
            "Lists with a quota": ("quota", "advertisers found, validation"),
            "Reserved places": ("quota", "advertisers found, validation"),
        }
        return [
            *(table(found, title) for title in whole),
            *(
                [[row[name] for name in names] for row in table(found, title)]
                for title, names in parts.items()
            ),
        ]

    one, two = load(report), load(tmp_path / "report")
    assert "not the log that bundle" in two["warnings"][0]
    assert two["data"]["log"]["is_training_log"] is False
    assert chosen(one) == chosen(two)
    assert table(one, "Cohort: all") != table(two, "Cohort: all")


def test_test_users_can_be_left_alone_and_ranking_requests_may_be_logged(
    data: SmallData, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, study = study_of(data, bundle)
    random = np.random.default_rng(5)
    rows = [
        {
            "request": f"{user}-{days}",
            "user": f"user-{user}",
            "time": CUT + timedelta(days=days),
            "advertiser": brand,
            "label": int(random.random() < 0.4),
        }
        for user in range(80)
        for days in (-20, 20)
        for brand in random.choice(BRANDS, 5, replace=False).tolist()
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    capsys.readouterr()
    logged = ("--ranking-log", str(tmp_path / "log.parquet"))
    assert run(data, bundle, "--validation-only", "--json", *logged) == 0
    found = json.loads(capsys.readouterr().out)
    (section,) = (each for each in found["sections"] if each["title"] == "Ranking on a ranking log")
    assert "logged, not simulated" in section["notes"][0]
    splits = study.without_test_users().splits
    judged = [f"user-{user}" for user in range(80) if splits.group_of(f"user-{user}") == "test"]
    assert f"{len(judged)} requests with {5 * len(judged)} candidates" in str(section["notes"])
    rankers = {row["forecast in the head"] for row in table(found, "Rankers on the ranking log")}
    assert {"base", "reference", "llm", "random", "shuffled", "lightgbm"} <= rankers
    answers = {each["question"]: each["text"] for each in found["verdict"]}
    assert "On the ranking log" in answers["Does the forecast improve ranking?"]
    assert any("The test users were not used" in warning for warning in found["warnings"])
    counts = table(found, "Users and cases")
    assert counts[1]["cases"] + counts[2]["cases"] == len(study.validation)
    assert min(counts[1]["cases"], counts[2]["cases"]) > 0


def test_recall_alone_is_measured_on_all_validation_users(
    data: SmallData,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the test users; the baselines' results serve later runs too."""
    monkeypatch.setattr(tuning, "KEPT_FROM_S", 0.0)
    _, study = study_of(data, bundle)
    options = ("--validation-only", "--sections", "recall", "--baselines", str(tmp_path / "kept"))
    reports = []
    for _ in range(2):
        capsys.readouterr()
        assert run(data, bundle, *options, "--json") == 0
        reports.append(json.loads(capsys.readouterr().out))
        monkeypatch.setattr(tuning, "forecast_all", lambda *_, **__: pytest.fail("again"))
    found = reports[0]
    assert reports[1]["sections"] == found["sections"]
    assert [section["title"] for section in found["sections"]] == SECTIONS[:4]
    counts = table(found, "Users and cases")
    assert [row["cases"] for row in counts[1:]] == [len(study.validation)] * 2
    assert any("validation users choose settings" in warning for warning in found["warnings"])


def test_the_terminal_shows_the_main_tables(
    data: SmallData, bundle: Path, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(data, bundle, "--validation-only", "--max-cases", "40") == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == f"Forecast quality of bundle {load(report)['data']['bundle_id']}"
    opening = " ".join(lines[:20])
    assert opening.index("Quick run: only one") < opening.index("Does the model find")
    assert "40 of " in opening
    assert "chose settings (`--max-cases 40`)" in opening
    for section in SECTIONS:
        assert (section in lines) == (section != "Tuning")
    assert lines[-1].endswith("--output DIR writes them")
    assert "960 events of 80 users (80 with a profile), 2023-12-18 to" in shown.err


def test_a_log_without_a_later_day_of_a_test_user_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = SmallData.write(tmp_path)
    early.write_events([row for row in invented_events() if row["day"] < CUT])
    assert run(early, bundle, "--other-log") == 2
    lines = capsys.readouterr().err.splitlines()
    assert f"user acts on an advertiser on or after {CUT}" in lines[-1]
    assert [line.partition(": ")[2].split()[0] for line in lines[:-1]] == ["reading"]


@pytest.mark.parametrize("missing", ["--bundle", "--events", "--columns"])
def test_a_missing_option_is_named(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"--bundle": "b", "--events": "e.parquet", "--columns": "c.toml"}
    arguments = [part for item in options.items() if item[0] != missing for part in item]
    assert main(["bench", "quality", *arguments]) == 2
    assert f"{missing} is missing" in capsys.readouterr().err
