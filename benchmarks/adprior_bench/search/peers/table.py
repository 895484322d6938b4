"""A comparison with peers as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adprior_bench.search.peers.system import ADPRIOR
from adprior_runtime.terminal.tables import format_table

_Row = Mapping[str, Any]


def comparison_text(rows: Sequence[_Row]) -> str:
    """Return the rows as a table, and below it what was compared and which peers have problems."""
    first = rows[0]
    table = format_table(
        [
            ("system", "left"), ("beams", "left"), ("ms a user", "right"),
            ("times adprior", "right"), ("processor ms", "right"), ("times adprior", "right"),
            ("illegal beams", "right"), (f"of the true {first['top_k']}", "right"),
            ("certified", "right"),
        ],
        [_cells(row) for row in rows],
    )  # fmt: skip
    lines = [
        table,
        "",
        f"{first['model']}: {first['catalogue_size']:,} names, beams of {first['beam_width']}, "
        f"{first['rounds']} rounds, prompts of {first['prompt_tokens']:.0f} tokens on average; "
        "medians, quartiles in brackets.",
    ]
    lines += [f"{row['system']}: {row['problem']}" for row in rows if row["problem"]]
    return "\n".join(lines)


def _cells(row: _Row) -> list[str]:
    kind = "the catalogue's" if row["constrained"] else "any text"
    if not row["rounds"]:
        return [row["system"], kind, *["–"] * 7]  # noqa: RUF001  a dash
    return [
        row["system"],
        kind,
        _ranged(row, "ms", 0),
        _ranged(row, "times_adprior", 1),
        f"{row['processor_ms']:,.0f}",
        f"{row['processor_times_adprior']:,.1f}",
        f"{row['illegal_share']:.1%}",
        f"{row['true_found']:.1f}",
        f"{row['certified_share']:.0%}" if row["system"] == ADPRIOR else "no",
    ]


def _ranged(row: _Row, name: str, digits: int) -> str:
    low, high = row[f"{name}_quartiles"]
    return f"{row[name]:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"
