"""What was measured on whom."""

from __future__ import annotations

from typing import Any

from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.study import Study
from adprior_bench.report.schema import Section


def protocol_section(study: Study) -> Section:
    """Describe the groups and count what they hold."""
    splits = study.splits
    rows: list[list[Any]] = [
        [
            "training",
            len(study.training.users),
            None,
            sum(int((user.rows >= 0).sum()) for user in study.training.users),
            None,
        ]
    ]
    for name, cases in (("validation", study.validation), ("test", study.test)):
        targets = sum(len(case.targets) for case in cases)
        missed = sum(case.missed for case in cases)
        users = len({case.user.user_id for case in cases})
        rows.append([name, users, len(cases), targets + missed, missed / (targets + missed)])
    found = cohorts(Targets.of(study.test))
    sizes: list[list[Any]] = [
        [cohort.title, int(cohort.cases.sum()), int(cohort.counts.sum())]
        for cohort in found.values()
    ]
    return {
        "title": "Protocol",
        "notes": [
            f"Events before {splits.cut} teach; days from then on are asked about. Training, "
            "validation and test users are disjoint, by a hash of their ids. A case is a user and "
            "a day with at least one advertiser; a forecast knows the events of strictly earlier "
            "days. Settings were chosen on validation users; test users were scored once.",
            "An advertiser of the day that the catalogue does not have counts as missed by every "
            "ranker. Intervals are 95 % percentile intervals of a bootstrap over users; "
            "differences are paired on the same resamples.",
        ],
        "content": [
            {
                "kind": "table",
                "title": "Users and cases",
                "columns": [
                    {"title": "group"},
                    {"title": "users", "format": "count"},
                    {"title": "cases", "format": "count"},
                    {"title": "advertisers acted on", "format": "count"},
                    {"title": "off the catalogue", "format": "percent", "digits": 1},
                ],
                "rows": rows,
                "note": "Of the training users, events before the cut on advertisers of the "
                "catalogue. Of the others, users with at least one case, and a case's advertisers "
                "each once.",
            },
            {
                "kind": "table",
                "title": "Cohorts of the test users",
                "detail": True,
                "columns": [
                    {"title": "cohort"},
                    {"title": "cases", "format": "count"},
                    {"title": "advertisers acted on", "format": "count"},
                ],
                "rows": sizes,
            },
        ],
    }
