"""The plot of a soak: resident memory over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from adprior_bench.report.plot_style import COLOURS, GREY, png
from adprior_bench.soak.memory import MemoryRecord


def draw_memory(record: MemoryRecord, warm_up_s: float) -> bytes:
    """Return a PNG: each process's memory in per cent of what it had after the warm-up."""

    def compose(_: Mapping[str, Any]) -> Figure:
        figure = Figure(figsize=(7.5, 3.6), layout="constrained")
        axes = figure.subplots()
        minutes = np.array(record.times_s) / 60
        for colour, growth in zip(COLOURS, record.growth(warm_up_s), strict=False):
            values = record.resident.get(growth.process)
            if values is None:  # all together
                values = np.sum(list(record.resident.values()), axis=0).tolist()
            share = np.array(values) / 2**20 / growth.first_mib
            label = f"{growth.process}, {growth.first_mib:.0f} MiB"
            axes.plot(minutes, 100 * share, color=colour, label=label, linewidth=1.2)
        axes.axvline(warm_up_s / 60, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_xlabel("minutes")
        axes.set_ylabel("% of the memory after the warm-up")
        axes.set_title("Resident memory of the server's processes")
        axes.grid(visible=True)
        axes.legend(fontsize=8, loc="lower right")
        return figure

    return png({}, compose)
