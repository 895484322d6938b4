"""A report with all kinds of content, for the tests of the report's writers."""

from __future__ import annotations

from adprior_bench.quality.intervals import Estimate
from adprior_bench.report.schema import Content, Report
from adprior_bench.report.tables import COUNT, make_table, percent, points

GAIN = Estimate(value=0.0123, low=-0.0004, high=0.025)
NOTHING = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))


def plots() -> list[Content]:
    """Return a plot of each kind, with a missing estimate in each."""
    return [
        {
            "kind": "reliability",
            "name": "reliability",
            "title": "Reliability",
            "format": "percent",
            "series": [
                {
                    "label": f"ranker {index} of $1 to $2",
                    "bins": [
                        {"predicted": 0.01, "observed": GAIN, "pairs": 10},
                        {"predicted": 0.2, "observed": NOTHING, "pairs": 1},
                    ],
                }
                for index in range(4)
            ],
        },
        {
            "kind": "bars",
            "name": "recall",
            "title": "Recall",
            "format": "percent",
            "signed": True,
            "groups": ["recall@1", "recall@10"],
            "series": [
                {"label": "popularity", "estimates": [GAIN, None]},
                {"label": "a ranker " * 9, "estimates": [NOTHING, GAIN], "highlight": True},
            ],
        },
        {
            "kind": "lines",
            "name": "quota",
            "title": "Recall against quota",
            "format": "percent",
            "x": [0.0, 0.05, 0.1],
            "x_label": "quota",
            "x_format": "percent",
            "value_label": "recall",
            "series": [
                {"label": "items", "estimates": [GAIN, GAIN, None]},
                {"label": "advertisers", "estimates": [GAIN, GAIN, GAIN]},
            ],
            "mark": 0.05,
            "mark_label": "chosen",
        },
    ]


def report() -> Report:
    """Return a whole report."""
    rows = [
        {
            "ranker": "popularity|x <b>",
            "recall@10": GAIN,
            "gain": {"value": 0.01, "low": 0, "high": 0.02},
            "cases": 1,
        },
        {"ranker": "own [history]", "recall@10": 0.5, "gain": NOTHING, "cases": 12345},
    ]
    cases = make_table(
        "All cases",
        rows,
        {"recall@10": percent(1), "gain": points(1), "cases": COUNT},
        highlight=lambda row: row["ranker"].startswith("own"),
        note="Of `users`.",
    )
    detail = make_table("A detail", [{"ranker": "a detail"}], detail=True)
    more = make_table("More", [{"ranker": "another"}], detail=True)
    return {
        "title": "Worth & <cost>",
        "warnings": ["Made <quickly>."],
        "verdict": [
            {"question": "Is it & worth it?", "answer": "partly", "text": "By 1 % [0, 2]."}
        ],
        "notes": ["Made by `adprior bench --k <k>`."],
        "sections": [
            {
                "title": "Rankers",
                "notes": ["A note | with <signs>."],
                "content": [cases, *plots(), detail],
            },
            {"title": "Made of details", "notes": ["A detail's note."], "content": [more]},
        ],
        "data": {"seed": 0, "missing": float("inf")},
    }
