"""What the prompt's parts are worth to the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adprior_bench.quality.intervals import Draws, estimate
from adprior_bench.report.schema import Section


def ablation_section(
    whole: Mapping[str, Draws], altered: Mapping[str, tuple[str, Mapping[str, Draws]]]
) -> Section:
    """Compare altered prompts with whole ones.

    Args:
        whole: Metric -> draws, of the model told everything.
        altered: Ablation -> its title, and metric -> draws on the same cases.
    """
    rows: list[list[Any]] = [
        ["whole", estimate(whole["recall@10"]), None, estimate(whole["log_loss"])]
    ]
    rows += [
        [
            title,
            estimate(draws["recall@10"]),
            estimate(draws["recall@10"] - whole["recall@10"]),
            estimate(draws["log_loss"]),
        ]
        for title, draws in altered.values()
    ]
    return {
        "title": "Prompt ablations",
        "notes": [
            "The same model, asked with parts of the prompt left out: it was trained with all of "
            "them. A part that the model's template does not show changes nothing."
        ],
        "content": [
            {
                "kind": "table",
                "title": "Altered prompts, all cases",
                "columns": [
                    {"title": "prompt"},
                    {"title": "recall@10", "format": "percent", "digits": 2},
                    {"title": "against the whole", "format": "points", "digits": 2, "signed": True},
                    {"title": "log-loss", "format": "decimal", "digits": 3},
                ],
                "rows": rows,
            }
        ],
    }
