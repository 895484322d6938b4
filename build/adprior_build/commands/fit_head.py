"""``adprior fit-head``: fit the prior head on ranking logs.

The head is a regression with the ranker's logit as an offset, P(label) = sigmoid(z + g(x)): it
learns only what the forecast adds to the ranker (arXiv 2605.27856). A fifth of the requests is held
out to measure it; the head that is measured is the one that is written. The report also shows the
recalibrated ranker alone, sigmoid(a z + b): that gain does not come from the forecast.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_build.head.clamp_in_graph import CLAMP, clamp_increments
from adprior_build.head.logistic_fit import fit_recalibration, log_losses
from adprior_build.head.onnx_head import HeadMetadata, write_head
from adprior_build.head.ranking_log import RankingRows, read_ranking_log
from adprior_build.head.variants import VARIANTS, Head, fit_variant
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.head.features import FEATURE_NAMES
from adprior_runtime.text.json_text import to_json

EXAMPLE = """example:
  adprior fit-head --logs ranking.parquet --bundle BUNDLE --output head.onnx

logs (Parquet, one row per candidate): request, advertiser_id, base_logit, label (0 or 1),
  forecast_advertiser_ids, forecast_log_probs, missing_mass (null without a forecast);
  optional: exact (the forecast's certificate), bundle_id (compared with the bundle's)"""

_HELD_OUT_SHARE: Final = 0.2

_Float64Array = npt.NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--logs", type=Path, required=True, help="ranking log (Parquet)")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle that made the forecasts")
    parser.add_argument("--output", type=Path, required=True, help="head to write (ONNX)")
    parser.add_argument(
        "--variant",
        choices=tuple(VARIANTS),
        default="logistic",
        help="form of the head: logistic is linear, hinges bends and has separate slopes for upper "
        "bounds (logistic)",
    )
    parser.add_argument(
        "--l2", type=float, default=1.0, metavar="N", help="penalty on squared weights (1)"
    )
    parser.add_argument(
        "--clamp",
        type=float,
        default=CLAMP,
        metavar="N",
        help=f"largest change of a logit, in nats ({CLAMP:g})",
    )
    parser.add_argument(
        "--negative-rate",
        type=float,
        default=1.0,
        metavar="N",
        help="share of the negatives that the log holds (1)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Fit and write the head; return the exit code."""
    if not 0 <= args.l2 < np.inf or not 0 < args.clamp < np.inf or not 0 < args.negative_rate <= 1:
        raise InvalidInputError(
            f"--l2 {args.l2}, --clamp {args.clamp}, --negative-rate {args.negative_rate}: "
            "expected --l2 of at least 0, --clamp above 0, --negative-rate above 0 and at most 1"
        )
    bundle = Bundle.open(args.bundle, [ADVERTISERS_DIRECTORY])
    rows = read_ranking_log(args.logs, bundle)
    held_out = _hold_out(args.logs, rows)
    # Keeping a negative with probability r raises the log's log-odds by -log r (He et al.,
    # "Practical lessons from predicting clicks on ads", 2014); the ranker's logit is for all rows.
    offsets = rows.base_logits.astype(np.float64) - np.log(args.negative_rate)
    head = _fit(args, rows, offsets, ~held_out)
    report = _make_report(args, bundle, head, rows, offsets, held_out)
    shown = to_json(report, indent=2) if args.json else _render(report)
    # Written last, so that a failure leaves neither a head nor a report.
    write_head(
        args.output,
        head,
        HeadMetadata(
            kind=args.variant,
            forecast_k=bundle.manifest.forecast_k,
            engine=bundle.manifest.engine,
            catalogue_fingerprint=bundle.manifest.catalogue_fingerprint,
            fitted_rows=int((~held_out).sum()),
        ),
    )
    print(shown)
    for warning in _warnings(args, rows, bundle, report):
        print(f"adprior fit-head: warning: {warning}", file=sys.stderr)
    return 0


def _warnings(
    args: argparse.Namespace, rows: RankingRows, bundle: Bundle, report: dict[str, Any]
) -> list[str]:
    found = []
    if report["log_loss_after"] > report["log_loss_before"]:
        found.append(f"{args.output} makes the held-out log-loss worse")
    if rows.of_no_bundle:
        found.append(
            f"{args.logs}: {rows.of_no_bundle:,} of {rows.total:,} rows do not say which bundle "
            f"made their forecasts; assumed {bundle.manifest.bundle_id}"
        )
    if rows.is_of_other_log:
        found.append(f"{args.logs}: simulated from a log that the bundle was not trained on")
    return found


def _fit(
    args: argparse.Namespace,
    rows: RankingRows,
    offsets: _Float64Array,
    chosen: npt.NDArray[np.bool_],
) -> Head:
    labels = rows.labels[chosen]
    if len(np.unique(labels)) < 2:
        raise InvalidInputError(
            f"{args.logs}: {int(labels.sum())} of the {len(labels)} rows to fit on are positive; "
            "expected some of each label"
        )
    return fit_variant(
        args.variant,
        rows.features[chosen],
        offsets[chosen],
        labels,
        l2=args.l2,
        clamp=args.clamp,
    )


def _hold_out(path: Path, rows: RankingRows) -> npt.NDArray[np.bool_]:
    """Choose the rows of a fifth of the requests, by their hashes: the same in every run."""
    requests = np.unique(rows.requests)
    if len(requests) < 2:
        raise InvalidInputError(
            f"{path}: {len(requests)} requests with a forecast and a candidate of the catalogue; "
            "expected at least 2, one to fit on and one to measure with"
        )
    count = max(1, round(_HELD_OUT_SHARE * len(requests)))
    return np.isin(rows.requests, requests[:count])


def _make_report(
    args: argparse.Namespace,
    bundle: Bundle,
    head: Head,
    rows: RankingRows,
    offsets: _Float64Array,
    held_out: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    increments = head.increments(rows.features[held_out])
    clipped = clamp_increments(increments, head.clamp)
    labels, before = rows.labels[held_out], offsets[held_out]
    slope, shift = fit_recalibration(offsets[~held_out], rows.labels[~held_out])
    return {
        "output": str(args.output),
        "bundle_id": bundle.manifest.bundle_id,
        "rows": rows.total,
        "rows_of_other_bundles": rows.of_other_bundles,
        "rows_of_no_bundle": rows.of_no_bundle,
        "rows_without_forecast": rows.without_forecast,
        "rows_off_catalogue": rows.off_catalogue,
        "rows_fitted": int((~held_out).sum()),
        "positives_fitted": int(rows.labels[~held_out].sum()),
        "rows_held_out": int(held_out.sum()),
        "positives_held_out": int(labels.sum()),
        "log_loss_before": float(log_losses(before, labels).mean()),
        "log_loss_recalibrated": float(log_losses(slope * before + shift, labels).mean()),
        "log_loss_after": float(log_losses(before + clipped, labels).mean()),
        "held_out_by_status": _by_status(rows.features[held_out], before, clipped, labels),
        "clamped_share": float((clipped != increments).mean()),
        "recalibration": {"slope": slope, "bias": shift},
        "variant": args.variant,
        "l2": args.l2,
        "clamp": args.clamp,
        "negative_rate": args.negative_rate,
        **_weights(head),
    }


def _weights(head: Head) -> dict[str, Any]:
    """Return the weight of each feature; empty for a head with more weights than features."""
    if len(head.weights) != len(FEATURE_NAMES):
        return {"bias": None, "weights": {}}
    weights = dict(zip(FEATURE_NAMES, head.weights.tolist(), strict=True))
    return {"bias": head.bias, "weights": weights}


def _by_status(
    features: npt.NDArray[np.float32],
    before: _Float64Array,
    increments: _Float64Array,
    labels: _Float64Array,
) -> dict[str, dict[str, float]]:
    """Return the head's effect on candidates with an exact score, and on those with a bound."""
    exact = features[:, FEATURE_NAMES.index("is_exact")] > 0
    parts = {CandidateStatus.EXACT: exact, CandidateStatus.UPPER_BOUND: ~exact}
    return {
        status.name.lower(): {
            "rows": int(part.sum()),
            "log_loss_before": float(log_losses(before[part], labels[part]).mean()),
            "log_loss_after": float(
                log_losses(before[part] + increments[part], labels[part]).mean()
            ),
            "mean_increment": float(increments[part].mean()),
        }
        for status, part in parts.items()
        if part.any()
    }


def _render(report: dict[str, Any]) -> str:
    before, after = report["log_loss_before"], report["log_loss_after"]
    change = f" ({after / before - 1:+.2%})" if before > 0 else ""
    return f"""{"":<30}{"rows":>12}{"positives":>12}
{"fitted":<30}{report["rows_fitted"]:>12,}{report["positives_fitted"]:>12,}
{"held out (20 % of requests)":<30}{report["rows_held_out"]:>12,}{report["positives_held_out"]:>12,}
{"left out: another bundle":<30}{report["rows_of_other_bundles"]:>12,}
{"left out: no forecast":<30}{report["rows_without_forecast"]:>12,}
{"left out: off the catalogue":<30}{report["rows_off_catalogue"]:>12,}

held-out log-loss  {before:.5f} before, {after:.5f} after{change}; \
{report["log_loss_recalibrated"]:.5f} only recalibrated
{_render_statuses(report)}
clamped            {report["clamped_share"]:.1%} of the held-out rows
{_render_weights(report)}
adprior fit-head: {report["output"]} · {report["variant"]} · bundle {report["bundle_id"]}"""


def _render_statuses(report: dict[str, Any]) -> str:
    return "\n".join(
        f"  {status.replace('_', ' '):<17}{part['log_loss_before']:.5f} before, "
        f"{part['log_loss_after']:.5f} after; {part['rows']:,} rows, "
        f"changed by {part['mean_increment']:+.3f} on average"
        for status, part in report["held_out_by_status"].items()
    )


def _render_weights(report: dict[str, Any]) -> str:
    if not report["weights"]:
        return ""
    rows = [*report["weights"].items(), ("bias", report["bias"])]
    lines = [f"  {name:<28}{value:>+12.4f}" for name, value in rows]
    return "\n".join(["", "weight of each feature, per standard deviation", *lines, ""])
