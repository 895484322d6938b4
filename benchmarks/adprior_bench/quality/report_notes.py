"""The text around the report's figures: warnings, notes, and the section on users and cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from adprior_bench.data.log_origin import LogOrigin
from adprior_bench.quality.baselines.choices import TunedBaseline
from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.evaluation_settings import Settings
from adprior_bench.quality.forecasts import Forecasts
from adprior_bench.quality.study import Study
from adprior_bench.report.schema import Cell, Section
from adprior_bench.report.tables import COUNT, make_table, percent
from adprior_runtime.bundle import Manifest


def warnings(study: Study, whole: Study, origin: LogOrigin, settings: Settings) -> list[str]:
    """Return the warnings that come before all figures.

    ``study`` may be a sample of the ``whole``.
    """
    found = origin.sentences(len(study.learnt))
    if settings.quick:
        found.append(
            "Quick run: only one small setting of each baseline was tried, and intervals come from "
            f"{settings.resamples} resamples. Weak baselines make the model look better than it "
            "is: run without `--quick` before you decide anything."
        )
    if settings.is_in_sample:
        found.append(
            "The test users were not used. In this report, the validation users choose settings "
            "and are scored, which flatters baselines and blends a little, but not the model."
        )
    elif settings.validation_only:
        found.append(
            "The test users were not used. In this report, test users are half of the validation "
            "users."
        )
    if settings.max_cases is not None:
        found.append(
            f"Sample of cases: {len(study.test):,} of {len(whole.test):,} test cases were scored, "
            f"and {len(study.validation):,} of {len(whole.validation):,} validation cases "
            f"chose settings (`--max-cases {settings.max_cases}`)."
        )
    return found


def notes(manifest: Manifest, study: Study) -> list[str]:
    """Return the origin of the data, and what the log holds."""
    found = [f"Origin of the model's training data: {manifest.origin}."] if manifest.origin else []
    found.append(f"The log: {study.log.sentence()}. Actions: {study.log.action_words()}.")
    return found


def protocol_section(study: Study) -> Section:
    """Describe the groups of users and count their cases."""
    cut = study.splits.cut
    events = sum(int((user.rows >= 0).sum()) for user in study.training.users)
    rows: list[dict[str, Cell]] = [
        {
            "group": "training",
            "users": len(study.training.users),
            "cases": None,
            "advertisers acted on": events,
            "not in the catalogue": None,
        }
    ]
    for name, cases in (("validation", study.validation), ("test", study.test)):
        missed = sum(case.missed for case in cases)
        total = missed + sum(len(case.targets) for case in cases)
        rows.append(
            {
                "group": name,
                "users": len({case.user.user_id for case in cases}),
                "cases": len(cases),
                "advertisers acted on": total,
                "not in the catalogue": missed / total,
            }
        )
    sizes: list[dict[str, Cell]] = [
        {
            "cohort": cohort.title,
            "cases": int(cohort.cases.sum()),
            "advertisers acted on": int(cohort.counts.sum()),
        }
        for cohort in cohorts(Targets.of(study.test)).values()
    ]
    counts = dict.fromkeys(("users", "cases", "advertisers acted on"), COUNT)
    return {
        "title": "Evaluation protocol",
        "notes": [
            f"The model and the baselines learn from events before {cut} and are evaluated on the "
            "days from that day on. Training, validation and test users are disjoint groups, "
            "chosen by a hash of their ids. A case is a user and a day with at least one "
            "advertiser; its forecast uses events of strictly earlier days. Settings were chosen "
            "on validation users; test users were scored once.",
            "An advertiser of the day that is not in the catalogue counts as missed by every "
            "ranker. Intervals are 95 % percentile intervals of a bootstrap over users; "
            "differences are paired on the same resamples.",
        ],
        "content": [
            make_table(
                "Users and cases",
                rows,
                {**counts, "not in the catalogue": percent(1)},
                note="For training users, the table counts their events before the cut with an "
                "advertiser of the catalogue. For the other groups, it counts only users with a "
                "case, and each advertiser once per case.",
            ),
            make_table("Cohorts of the test users", sizes, counts, detail=True),
        ],
    }


def machine_data(
    study: Study,
    tuned: Sequence[TunedBaseline],
    forecasts: Forecasts,
    origin: LogOrigin,
    settings: Settings,
) -> dict[str, Any]:
    """Return the settings and choices of the evaluation, for programs."""
    return {
        "quick": settings.quick,
        "resamples": settings.resamples,
        "validation_only": settings.validation_only,
        "max_cases": settings.max_cases,
        "log": study.log.to_json() | origin.to_json(),
        "split": study.splits.to_json(),
        "blend_shares": forecasts.shares,
        "tuning": {each.name: [asdict(trial) for trial in each.trials] for each in tuned},
    }
