from __future__ import annotations

import io
import itertools
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from adprior_bench.report.plain import plain
from adprior_bench.report.plots import compose_reliability, draw
from support.quality_report import plots


@pytest.mark.parametrize("plot", plots(), ids=lambda plot: str(plot["kind"]))
def test_every_plot_is_drawn_within_its_margins_and_always_alike(plot: Any) -> None:
    image = draw(plain(plot))
    pixels = matplotlib.image.imread(io.BytesIO(image), format="png")[..., :3]
    assert (pixels < 0.5).any()
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert np.all(edge == 1), "something is cut off"
    assert draw(plain(plot)) == image


def test_every_reliability_panel_has_labels_on_both_axes_that_do_not_overlap() -> None:
    """Panels above others too: the model's is the first."""
    (plot,) = (plot for plot in plots() if plot["kind"] == "reliability")
    figure = compose_reliability(plain(plot))
    figure.canvas.draw()
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert len(panels) == 4
    for panel in panels:
        labels = [label for label in panel.get_xticklabels() if label.get_text()]
        assert len(labels) >= 3
        assert all(label.get_visible() for label in labels)
        boxes = [label.get_window_extent() for label in labels]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("plot", plots(), ids=lambda plot: str(plot["kind"]))
def test_a_plot_without_any_estimate_is_still_drawn(plot: Any) -> None:
    def emptied(value: Any) -> Any:
        if isinstance(value, dict):
            return None if "low" in value else {key: emptied(each) for key, each in value.items()}
        return [emptied(each) for each in value] if isinstance(value, list) else value

    assert draw(emptied(plain(plot))).startswith(b"\x89PNG")
