"""What was measured on whom, and what every ranker's tuning cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.report.schema import Section
from adprior_bench.quality.study import Study
from adprior_bench.quality.tuning import Tuned

__all__ = ["protocol_section", "tuning_section"]


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
        rows.append([name, users, len(cases), targets, missed / (targets + missed)])
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
                "columns": [
                    {"title": "cohort"},
                    {"title": "cases", "format": "count"},
                    {"title": "advertisers acted on", "format": "count"},
                ],
                "rows": sizes,
            },
        ],
    }


def tuning_section(tuned: Sequence[Tuned], training: Mapping[str, Any]) -> Section:
    """Say what was tried, for how long, and what the language model's training took."""
    settings = training.get("settings", {})
    minutes, epochs = settings.get("minutes"), len(training.get("losses", []))
    spent = f"{epochs} epochs" + (f" within {minutes:g} minutes" if minutes else "")
    start = training.get("start")
    origin = (
        "from scratch, its first weights made to copy and to know popularity: no pre-trained model "
        "was at hand, so the knowledge of the world that one brings is absent from every figure"
        if start == "scratch"
        else f"from the checkpoint `{start}`"
    )
    return {
        "title": "Tuning",
        "notes": [
            f"The language model started {origin}. It took {spent}, and validation users chose the "
            "epoch to keep. What the baselines tried is below: every setting was fitted on the "
            "training users and scored by recall@10 on the validation users' cases.",
        ],
        "content": [
            {
                "kind": "table",
                "title": "Baselines on validation users",
                "columns": [
                    {"title": "baseline"},
                    {"title": "settings tried", "format": "count"},
                    {"title": "seconds", "format": "count"},
                    {"title": "chosen"},
                    {"title": "recall@10", "format": "percent", "digits": 2},
                    {"title": "lowest tried", "format": "percent", "digits": 2},
                ],
                "rows": [
                    [
                        each.name,
                        len(each.trials),
                        round(sum(trial.seconds for trial in each.trials)),
                        ", ".join(f"{k} {v}" for k, v in each.best.settings.items()),
                        each.best.recall,
                        min(trial.recall for trial in each.trials),
                    ]
                    for each in tuned
                ],
            }
        ],
    }
