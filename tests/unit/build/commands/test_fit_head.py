from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from adprior_build.commands import fit_head
from adprior_build.head.ranking_log import COLUMNS, RankingRows, read_ranking_log
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, MANIFEST, Bundle, Manifest, hash_file
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.head.features import (
    FEATURE_NAMES,
    LOG_PROB_FLOOR,
    CandidatePriors,
    KnownForecast,
    candidate_priors,
)
from adprior_runtime.head.head import PriorHead

CATALOGUE = np.arange(100, 150)
OFF_CATALOGUE = 7
TRUE_BIAS = -0.5
TRUE_WEIGHTS = np.array([0.3, 0.1, 0.4, 0.8, 0.0, -0.3])
"""Weights of raw features, so small that the clamp of 10 never applies."""

Columns = dict[str, Any]
Fit = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory = tmp_path_factory.mktemp("bundle")
    (directory / ADVERTISERS_DIRECTORY).mkdir()
    count = len(CATALOGUE)
    Advertisers.build(
        CATALOGUE.tolist(),
        [f"brand {row}" for row in range(count)],
        [1] * count,
        list(range(count, 0, -1)),
    ).save(directory / ADVERTISERS_DIRECTORY)
    files = {
        str(path.relative_to(directory)): hash_file(path)
        for path in (directory / ADVERTISERS_DIRECTORY).iterdir()
    }
    manifest = Manifest(bundle_id="", forecast_k=8, catalogue_fingerprint="c0ffee", files=files)
    (directory / MANIFEST).write_text(manifest.sealed().to_json(), encoding="utf-8")
    return Bundle.open(directory)


@pytest.fixture(scope="module")
def planted(bundle: Bundle) -> Columns:
    return _plant(bundle, requests=2500, seed=0)


def _plant(
    bundle: Bundle, *, requests: int, seed: int, candidates: int = 12, bias: float = TRUE_BIAS
) -> Columns:
    """Make a log whose labels follow the ranker's logit plus the planted head."""
    random = np.random.default_rng(seed)
    advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
    columns: Columns = {name: [] for name in COLUMNS}
    for request in range(requests):
        shares = random.dirichlet(np.full(len(CATALOGUE), random.uniform(0.05, 0.5))) + 1e-6
        shares /= shares.sum() * 1.05
        shown = np.argsort(-shares)[: int(random.integers(2, 9))]
        log_probs = np.log(shares[shown]).astype(np.float32)
        chosen = np.concatenate([shown, random.permutation(len(CATALOGUE))])[:candidates]
        forecast = KnownForecast(
            advertiser_ids=CATALOGUE[shown],
            log_probs=log_probs,
            missing_mass=float(1 - shares[shown].sum()),
            exact=False,
        )
        priors = candidate_priors(forecast, CATALOGUE[chosen], advertisers, len(shown))
        base = random.normal(0.0, 1.0, candidates).astype(np.float32)
        logits = base + bias + priors.features @ TRUE_WEIGHTS
        labels = random.uniform(size=candidates) < 1 / (1 + np.exp(-logits))
        columns["request"] += [f"request {request}"] * candidates
        columns["advertiser_id"] += CATALOGUE[chosen].tolist()
        columns["base_logit"] += base.tolist()
        columns["label"] += labels.astype(int).tolist()
        columns["forecast_advertiser_ids"] += [CATALOGUE[shown].tolist()] * candidates
        columns["forecast_log_probs"] += [log_probs.tolist()] * candidates
        columns["missing_mass"] += [forecast.missing_mass] * candidates
    return columns


def _small(**changed: Any) -> Columns:
    columns: Columns = {
        "request": ["a", "a", "b", "c"],
        "advertiser_id": [100, 101, 100, 102],
        "base_logit": [0.1, -0.2, 0.3, 0.0],
        "label": [1, 0, 0, 1],
        "forecast_advertiser_ids": [[100, 102]] * 4,
        "forecast_log_probs": [[-0.5, -1.5]] * 4,
        "missing_mass": [0.2] * 4,
    }
    return columns | changed


@pytest.fixture
def fit(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fit:
    """Run the command on a log, given as columns; return its JSON report."""

    def run(columns: Columns, *options: str) -> dict[str, Any]:
        logs = tmp_path / "log.parquet"
        pa.parquet.write_table(pa.table(columns), logs)
        _run(logs, bundle, tmp_path / "head.onnx", "--json", *options)
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    return run


def _run(logs: Path, bundle: Bundle, output: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    fit_head.add_arguments(parser)
    paths = ["--logs", str(logs), "--bundle", str(bundle.directory), "--output", str(output)]
    return fit_head.run(parser.parse_args([*paths, *options]))


def _typical_error(path: Path, columns: Columns, bundle: Bundle, tmp_path: Path) -> float:
    """Return the RMS distance of the written head's increments from the planted ones."""
    pa.parquet.write_table(pa.table(columns), tmp_path / "fresh.parquet")
    rows = read_ranking_log(tmp_path / "fresh.parquet", bundle)
    model = PriorHead(path)
    count = len(rows.labels)
    priors = CandidatePriors(
        log_probs=np.zeros(count, dtype=np.float32),
        statuses=np.zeros(count, dtype=np.uint8),
        features=rows.features,
    )
    increments = model.adjust(rows.base_logits, priors).adjustments
    planted = TRUE_BIAS + rows.features @ TRUE_WEIGHTS
    return float(np.sqrt(((increments - planted) ** 2).mean()))


def test_a_planted_head_is_recovered(
    planted: Columns, bundle: Bundle, fit: Fit, tmp_path: Path
) -> None:
    report = fit(planted, "--clamp", "10")
    assert report["log_loss_after"] < report["log_loss_recalibrated"] < report["log_loss_before"]
    assert report["recalibration"]["slope"] == pytest.approx(1, abs=0.3)
    assert report["rows"] == 30_000
    assert report["rows_fitted"] + report["rows_held_out"] == 30_000
    assert report["rows_held_out"] == 6_000
    parts = report["held_out_by_status"].values()
    assert sum(part["rows"] for part in parts) == 6_000
    for moment in ("before", "after"):
        total = sum(part["rows"] * part[f"log_loss_{moment}"] for part in parts)
        assert total / 6_000 == pytest.approx(report[f"log_loss_{moment}"])
    assert set(report["weights"]) == set(FEATURE_NAMES)
    fresh = _plant(bundle, requests=100, seed=9)
    assert _typical_error(tmp_path / "head.onnx", fresh, bundle, tmp_path) < 0.12
    metadata = PriorHead(tmp_path / "head.onnx").metadata
    assert metadata["fitted_rows"] == str(report["rows_fitted"])
    assert metadata["forecast_k"] == "8"
    assert metadata["catalogue_fingerprint"] == "c0ffee"
    assert (metadata["kind"], metadata["clamp"]) == ("logistic", "10.0")


def test_sampled_negatives_are_corrected_for(
    planted: Columns, bundle: Bundle, fit: Fit, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    labels = np.array(planted["label"], dtype=np.bool_)
    kept = np.flatnonzero(labels | (random.uniform(size=len(labels)) < 0.3))
    sampled = pa.table(planted).take(kept).to_pydict()
    fit(sampled, "--clamp", "10", "--negative-rate", "0.3")
    fresh = _plant(bundle, requests=100, seed=9)
    assert _typical_error(tmp_path / "head.onnx", fresh, bundle, tmp_path) < 0.15
    # Without the option, the head credits the forecast with the missing negatives: -log 0.3.
    fit(sampled, "--clamp", "10")
    error = _typical_error(tmp_path / "head.onnx", fresh, bundle, tmp_path)
    assert error == pytest.approx(-np.log(0.3), abs=0.15)


def test_hinges_are_fitted_and_written(
    planted: Columns, bundle: Bundle, fit: Fit, tmp_path: Path
) -> None:
    report = fit(planted, "--clamp", "10", "--variant", "hinges")
    assert (report["variant"], report["weights"]) == ("hinges", {})
    assert PriorHead(tmp_path / "head.onnx").metadata["kind"] == "hinges"
    assert report["log_loss_after"] < report["log_loss_recalibrated"]
    fresh = _plant(bundle, requests=100, seed=9)
    assert _typical_error(tmp_path / "head.onnx", fresh, bundle, tmp_path) < 0.3
    logs, head = tmp_path / "log.parquet", tmp_path / "head.onnx"
    assert _run(logs, bundle, head, "--variant", "hinges") == 0


@pytest.mark.parametrize("spoil", ["fit_recalibration", "_render"])
def test_a_report_that_fails_leaves_no_head(
    bundle: Bundle, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    fit(_small())
    before = (tmp_path / "head.onnx").read_bytes()

    def fail(*_: Any) -> Any:
        raise InvalidInputError("the fit does not converge")

    monkeypatch.setattr(fit_head, spoil, fail)
    for output, found in (("other.onnx", None), ("head.onnx", before)):
        with pytest.raises(InvalidInputError, match="does not converge"):
            _run(tmp_path / "log.parquet", bundle, tmp_path / output)
        path = tmp_path / output
        assert (path.read_bytes() if path.exists() else None) == found


def test_the_same_log_gives_the_same_head(bundle: Bundle, fit: Fit, tmp_path: Path) -> None:
    columns = _plant(bundle, requests=30, seed=1)
    first = fit(columns)
    written = (tmp_path / "head.onnx").read_bytes()
    assert fit(columns) == first
    assert (tmp_path / "head.onnx").read_bytes() == written


def test_rows_without_a_prior_are_left_out(bundle: Bundle, fit: Fit) -> None:
    columns = _plant(bundle, requests=30, seed=2)
    plain = fit(columns)
    without: Columns = {name: [*values] for name, values in columns.items()}
    forecasts: list[tuple[Any, Any, Any]] = [(None, None, None), ([], [], None), ([], [], 1.0)]
    for forecast in forecasts:
        for name, value in zip(COLUMNS, ("later", 100, 50.0, 0, *forecast), strict=True):
            without[name].append(value)
    for name in COLUMNS:
        without[name].append(columns[name][0])
    without["advertiser_id"][-1] = OFF_CATALOGUE
    report = fit(without)
    assert report["rows_without_forecast"] == 3
    assert report["rows_off_catalogue"] == 1
    assert report["weights"] == pytest.approx(plain["weights"])
    assert report["log_loss_before"] == pytest.approx(plain["log_loss_before"])


def test_the_default_report_is_a_table(
    bundle: Bundle, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(_plant(bundle, requests=30, seed=1))
    assert _run(tmp_path / "log.parquet", bundle, tmp_path / "head.onnx") == 0
    text = capsys.readouterr().out
    assert "held-out log-loss" in text
    assert all(name in text for name in FEATURE_NAMES)
    assert f"bundle {bundle.manifest.bundle_id}" in text


def test_a_head_that_does_harm_is_reported(
    bundle: Bundle, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {name: values * 5 for name, values in _small().items()}
    columns |= {"request": list(range(20)), "base_logit": [0.0] * 20}
    fit(columns)
    requests = read_ranking_log(tmp_path / "log.parquet", bundle).requests
    held_out = np.isin(requests, np.unique(requests)[:4])
    chances = np.where(held_out, 0.0, 0.9)
    columns["label"] = (np.random.default_rng(0).uniform(size=20) < chances).astype(int).tolist()
    pa.parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert _run(tmp_path / "log.parquet", bundle, tmp_path / "head.onnx") == 0
    assert "makes the held-out log-loss worse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": [1, 0, 2, 0]}, r"label: row 2 \(from 0\), and 0 more: expected 0 or 1"),
        ({"label": [1, None, None, 0]}, "label: row 1 .* and 1 more: found a null"),
        ({"label": ["yes", "no", "no", "no"]}, "label: found string, expected double"),
        ({"base_logit": [0.0, np.nan, 0.0, 0.0]}, "base_logit: row 1"),
        ({"base_logit": [0.0, 1e300, 0.0, 0.0]}, "base_logit: row 1"),
        ({"advertiser_id": ["a", "b", "c", "d"]}, "advertiser_id: found string"),
        ({"advertiser_id": [1, 2, None, 4]}, "advertiser_id: row 2"),
        ({"request": ["a", "a", None, "c"]}, "request: row 2"),
        ({"request": [[1], [2], [3], [4]]}, "request: found list"),
        ({"missing_mass": [0.2, 0.2, None, 0.2]}, "row 2 .* MISSING_MASS: found nan"),
        ({"missing_mass": [0.2, 0.2, 1.5, 0.2]}, "row 2 .* MISSING_MASS: found 1.5"),
        ({"forecast_log_probs": [[-1.0]] * 4}, "forecast_log_probs: row 0 .* and 3 more"),
        ({"forecast_log_probs": [[-1.0, None]] * 4}, "null inside a list"),
        ({"forecast_log_probs": [[-1.0, np.nan]] * 4}, r"row 0 .* LOG_PROBS\[1\]: found nan"),
        ({"forecast_log_probs": [1.0] * 4}, "forecast_log_probs: found double, expected large"),
        ({"forecast_advertiser_ids": [[5, 5]] * 4}, "row 0 .* ADVERTISER_IDS: found 5 2 times"),
        (
            {
                "forecast_advertiser_ids": [list(range(9))] * 4,
                "forecast_log_probs": [[-3.0] * 9] * 4,
            },
            "9 advertisers, the bundle's forecasts hold 8; build it with --forecast-k 9",
        ),
        ({"forecast_advertiser_ids": [[]] * 4, "forecast_log_probs": [[]] * 4}, "no row of 4"),
        ({"forecast_advertiser_ids": [None] * 4, "forecast_log_probs": [None] * 4}, "no row of 4"),
        ({"label": [0, 0, 0, 0]}, "0 of the . rows to fit on are positive"),
        ({"label": [1, 1, 1, 1]}, "expected some of each label"),
        ({"request": ["a"] * 4}, "1 requests with a forecast .* expected at least 2"),
        ({"bundle_id": ["b2", "b2", None, "b0"]}, "made with bundle b0, b2; .* is [0-9a-f]{12}$"),
    ],
)
def test_a_bad_log_is_refused(fit: Fit, tmp_path: Path, changed: Columns, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        fit(_small(**changed))
    assert not (tmp_path / "head.onnx").exists()


def test_a_log_without_columns_rows_or_file_is_refused(
    fit: Fit, bundle: Bundle, tmp_path: Path
) -> None:
    columns = _small()
    del columns["label"], columns["missing_mass"]
    with pytest.raises(InvalidInputError, match="no column label, missing_mass; found: request, a"):
        fit(columns)
    with pytest.raises(InvalidInputError, match="no row of 0 has a forecast"):
        fit({name: [] for name in COLUMNS})
    with pytest.raises(InvalidInputError, match=r"none\.parquet"):
        _run(tmp_path / "none.parquet", bundle, tmp_path / "head.onnx")


@pytest.mark.parametrize(
    "option", ["--l2=-1", "--l2=nan", "--clamp=0", "--negative-rate=0", "--negative-rate=1.5"]
)
def test_impossible_settings_are_refused(fit: Fit, option: str) -> None:
    with pytest.raises(InvalidInputError, match=option.partition("=")[0]):
        fit(_small(), option)


def test_rows_that_name_no_bundle_are_reported(
    bundle: Bundle, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = _plant(bundle, requests=30, seed=1)
    rows = len(columns["request"])
    assert fit(columns)["rows_of_no_bundle"] == rows
    assert _run(tmp_path / "log.parquet", bundle, tmp_path / "head.onnx") == 0
    assert f"{rows} of {rows} rows do not say which bundle" in capsys.readouterr().err
    report = fit(columns | {"bundle_id": [bundle.manifest.bundle_id] * rows})
    assert report["rows_of_no_bundle"] == 0
    assert report["bundle_id"] == bundle.manifest.bundle_id


def _read(bundle: Bundle, directory: Path, **columns: list[Any]) -> RankingRows:
    """Read a log of one request with the given columns, the others the same in every row."""
    rows = len(next(iter(columns.values())))
    same = {
        "request": "r",
        "advertiser_id": 100,
        "base_logit": 0.0,
        "label": 0,
        "forecast_advertiser_ids": [100, 101],
        "forecast_log_probs": [-1.0, -2.0],
        "missing_mass": 0.5,
    }
    table = pa.table({name: [value] * rows for name, value in same.items()} | columns)
    pa.parquet.write_table(table, directory / "log.parquet")
    return read_ranking_log(directory / "log.parquet", bundle)


def test_a_candidates_own_score_replaces_the_forecasts_bound(
    bundle: Bundle, tmp_path: Path
) -> None:
    read = _read(
        bundle,
        tmp_path,
        advertiser_id=[100, 102, 103, 104, 105],
        exact=[True] * 5,
        log_prob=[-1.0, -4.0, -3.0, None, None],
        status=["exact", "exact", "upper_bound", "upper_bound", "exact"],
    )
    log_probs, is_exact = read.features[:, 0], read.features[:, 2]
    assert log_probs.tolist() == pytest.approx([-1.0, -4.0, -3.0, np.log(0.5), LOG_PROB_FLOOR])
    assert is_exact.tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_rows_of_another_bundle_are_left_out(bundle: Bundle, tmp_path: Path) -> None:
    ours = bundle.manifest.bundle_id
    read = _read(bundle, tmp_path, bundle_id=[ours, "b0", None, "b0", ours])
    assert (read.total, read.of_other_bundles, len(read.features)) == (5, 2, 3)
    assert read.of_no_bundle == 1
