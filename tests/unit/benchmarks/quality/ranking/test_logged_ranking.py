from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from adprior_bench.quality.ranking.logged_ranking import measure_log, ranking_table
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError


def _log(path: Path, count: int = 3000, **changed: Any) -> dict[str, Any]:
    random = np.random.default_rng(1)
    base = random.normal(size=count) - 1
    signal = random.normal(size=count).round(1)
    label = random.random(count) < 1 / (1 + np.exp(-(base + signal)))
    columns: dict[str, Any] = {
        "request": (np.arange(count) // 10).tolist(),
        "base_logit": base,
        "adjusted_logit": base + 0.8 * signal,
        "label": label.astype(int),
        "status": ["exact"] * count,
    }
    columns |= changed
    pq.write_table(pa.table(columns), path)
    return columns


def _values(report: dict[str, Any]) -> dict[tuple[str, str], tuple[float, list[float]]]:
    return {(r["metric"], r["logits"]): (r["value"], r["interval"]) for r in report["metrics"]}


def test_values_are_those_of_scikit_learn(tmp_path: Path) -> None:
    columns = _log(tmp_path / "log.parquet")
    values = _values(measure_log(tmp_path / "log.parquet"))
    for name in ("base", "adjusted"):
        logit, label = columns[f"{name}_logit"], columns["label"]
        assert values["auc", name][0] == pytest.approx(roc_auc_score(label, logit))
        expected = log_loss(label, 1 / (1 + np.exp(-logit)))
        assert values["log_loss", name][0] == pytest.approx(expected)
        low, high = values["auc", name][1]
        assert low < values["auc", name][0] < high


def test_the_bundles_of_the_rows_are_named(tmp_path: Path) -> None:
    _log(tmp_path / "unsaid.parquet")
    assert measure_log(tmp_path / "unsaid.parquet")["rows_by_bundle"] == {}
    _log(
        tmp_path / "two.parquet",
        bundle_id=["b1"] * 2000 + ["b2"] * 900 + [None] * 100,
        status=["exact"] * 2500 + ["unknown"] * 500,
    )
    found = measure_log(tmp_path / "two.parquet")
    assert found["rows_by_bundle"] == {"b1": 2000, "b2": 500}
    assert "of bundle b1 2,000 rows, b2 500 rows: the figures mix them" in ranking_table(found)
    _log(tmp_path / "one.parquet", bundle_id=["b1"] * 3000)
    assert "of bundle b1 3,000 rows\n" in ranking_table(measure_log(tmp_path / "one.parquet"))


def test_a_signal_is_distinct_from_noise(tmp_path: Path) -> None:
    columns = _log(tmp_path / "real.parquet")
    noise = np.random.default_rng(2).normal(size=3000) * 0.1
    _log(tmp_path / "noise.parquet", adjusted_logit=columns["base_logit"] + noise)
    real = _values(measure_log(tmp_path / "real.parquet"))["auc", "adjusted - base"]
    none = _values(measure_log(tmp_path / "noise.parquet"))["auc", "adjusted - base"]
    assert real[1][0] > 0
    assert none[1][0] < 0 < none[1][1] or abs(none[0]) < 0.005


def test_rows_without_an_answer_are_left_out(tmp_path: Path) -> None:
    _log(tmp_path / "log.parquet", status=["unknown"] * 1000 + ["exact"] * 2000)
    report = measure_log(tmp_path / "log.parquet")
    assert (report["rows"], report["rows_with_an_answer"], report["requests"]) == (3000, 2000, 200)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": [0] * 3000}, "all of their labels are equal"),
        ({"label": [2] * 3000}, "label: row 0 .* expected 0 or 1"),
        ({"adjusted_logit": [float("nan")] * 3000}, "adjusted_logit: row 0"),
        ({"status": ["unknown"] * 3000}, "0 of 3000 rows have an answer"),
    ],
)
def test_an_unusable_log_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    _log(tmp_path / "log.parquet", **changed)
    with pytest.raises(InvalidInputError, match=message):
        measure_log(tmp_path / "log.parquet")


def test_the_command_prints_text_or_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.parquet"
    _log(path)
    assert main(["bench", "quality", "--logs", str(path)]) == 0
    assert "adjusted - base" in capsys.readouterr().out
    assert main(["bench", "quality", "--logs", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3000
    assert main(["bench", "quality"]) == 2
    assert "--bundle is missing (or give --logs)" in capsys.readouterr().err
