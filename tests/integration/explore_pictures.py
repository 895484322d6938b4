"""Pictures of the page of ``adprior explore``, and how long a person waits for it.

``make screenshots`` runs it on the shipped model::

    PYTHONPATH=tests:demo python -m integration.explore_pictures --output docs/images

The second bundle has the same model, and every second advertiser of the catalogue.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.csv
import pyarrow.parquet
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from adprior_runtime.cpu_count import available_processors
from adprior_runtime.files.atomic import replace_file
from shipped_model import BUNDLE, build_repository
from support.browser import NARROW, Scheme, open_browser, open_page
from support.explore_page import ExplorePage
from support.explorer import explore
from support.paths import DEMO
from support.servers import build_repository as build_from
from support.servers import start_server

SIZE: Final = (1440, 900)
USER: Final = "dog owner"
EVENT: Final = 11
"""The event of `USER` that is edited: a purchase of Purina."""
COLOURS: Final = 256
CANDIDATES: Final = (
    # The demo's candidates: Amazon Basics, Purina, Blue Buffalo, Anker, Pampers, PetSafe, Wilton.
    "1, -2.6\n23, -2.9\n214, -3.0\n13, -3.0\n942, -3.1\n75, -3.2\n80, -3.3\n999999999, -3.0"
)


def main() -> int:
    """Write the pictures and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="directory of the pictures; none without it")
    parser.add_argument("--loads", type=int, default=20, help="how often the page is opened")
    parser.add_argument("--edits", type=int, default=20, help="how many edits are timed")
    args = parser.parse_args()
    with serve_both() as url, open_browser() as browser:
        for name, (draw, scheme, size) in PICTURES.items() if args.output else ():
            write_picture(browser, url, args.output / f"explore_{name}.png", draw, scheme, size)
        print_times(browser, url, args.loads, args.edits)
    return 0


@contextmanager
def serve_both() -> Iterator[str]:
    """Serve both bundles and the page; return its address."""
    with tempfile.TemporaryDirectory(prefix="adprior-pictures-") as scratch, ExitStack() as stack:
        first, second = Path(scratch) / "a" / "repository", Path(scratch) / "b" / "repository"
        for place in (first, second):
            place.parent.mkdir()
        build_repository(first, None)
        catalogue = second.with_name("catalogue.csv")
        table = pyarrow.parquet.read_table(BUNDLE / "catalogue.parquet")
        rows = np.arange(0, table.num_rows, 2)
        pyarrow.csv.write_csv(table.select(["advertiser_id", "name"]).take(rows), catalogue)
        tuning = str(first.with_name("tuning.toml"))
        build_from(BUNDLE, second, "--catalogue", str(catalogue), "--tuning", tuning)
        servers = [stack.enter_context(start_server(each)) for each in (first, second)]
        options: list[str | Path] = ["--url", servers[0].grpc_address, "--port", "0"]
        options += ["--bundle-b", servers[1].grpc_address]
        options += ["--users", *sorted((DEMO / "users").glob("*.json"))]
        yield stack.enter_context(explore(*options)).url


def write_picture(
    browser: Browser,
    url: str,
    path: Path,
    draw: Callable[[ExplorePage], None],
    scheme: Scheme,
    size: tuple[int, int],
) -> None:
    """Bring the page into a state, and write a picture of it as a small PNG."""
    watched = open_page(browser, url, size, color_scheme=scheme)
    draw(ExplorePage(watched.page))
    watched.page.mouse.move(0, 0)
    raw = watched.page.screenshot(animations="disabled")
    watched.close()
    with Image.open(io.BytesIO(raw)) as image, replace_file(path) as scratch:
        _with_few_colours(image.convert("RGB")).save(scratch, format="PNG", optimize=True)
    print(f"{path} {path.stat().st_size / 1024:.0f} KiB", flush=True)


def _with_few_colours(image: Image.Image) -> Image.Image:
    """Return a picture in its most frequent colours: surfaces stay as they are, edges nearly so.

    Coloured pixels count more than grey ones: the grey edges of letters have many shades.
    """
    pixels = np.asarray(image, dtype=np.int32).reshape(-1, 3)
    colours, places, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    saturation = colours.max(axis=1) - colours.min(axis=1)
    frequent = colours[np.argsort(-counts * (1 + saturation))[:COLOURS]]
    nearest = ((colours[:, None] - frequent) ** 2).sum(axis=2).argmin(axis=1).astype(np.uint8)
    small = Image.frombytes("P", image.size, nearest[places].tobytes())
    small.putpalette(frequent.astype(np.uint8).tobytes())
    return small


def _forecast(shown: ExplorePage) -> None:
    shown.page.get_by_label("interests").check()
    shown.pick(USER)
    with shown.new_forecast():
        shown.event_field(EVENT, "advertiser").fill("KONG")


def _why(shown: ExplorePage) -> None:
    shown.pick(USER)
    panel = shown.open("why")
    panel.get_by_role("button", name="Leave out each part").click()
    expect(panel.locator("tbody tr").first).to_be_visible(timeout=120_000)


def _ranking(shown: ExplorePage) -> None:
    shown.pick(USER)
    panel = shown.open("ranking")
    panel.locator("#candidates").fill(CANDIDATES)
    panel.get_by_role("button", name="Rank", exact=True).click()
    panel.locator("#candidates").evaluate("area => { area.scrollTop = 0; }")
    panel.get_by_role("button", name="Keep this forecast").click()
    with shown.new_forecast():
        shown.event_field(EVENT, "advertiser").fill("KONG")
    expect(panel.locator("thead")).to_contain_text("stored")
    expect(panel.locator(".waiting")).to_have_count(0)


def _compare(shown: ExplorePage) -> None:
    shown.pick(USER)
    panel = shown.open("compare")
    expect(panel.locator("table")).to_be_visible()
    expect(panel.locator(".waiting")).to_have_count(0)


def _narrow(shown: ExplorePage) -> None:
    shown.pick(USER)
    shown.open("forecast")


PICTURES: Final[Mapping[str, tuple[Callable[[ExplorePage], None], Scheme, tuple[int, int]]]] = {
    "forecast": (_forecast, "light", SIZE),
    "forecast_dark": (_forecast, "dark", SIZE),
    "why": (_why, "light", SIZE),
    "ranking": (_ranking, "dark", SIZE),
    "compare": (_compare, "light", SIZE),
    "narrow": (_narrow, "light", NARROW),
}


def print_times(browser: Browser, url: str, loads: int, edits: int) -> None:
    """Time loads of the page, and edits from the keystroke to the drawn forecast."""
    paints = [_first_paint_ms(browser, url) for _ in range(loads)]
    print(f"first paint: {describe(paints)}, {loads} loads, nothing cached")
    watched = open_page(browser, url, SIZE)
    shown = ExplorePage(watched.page)
    shown.pick(USER)
    whole, beside = [], []
    for number in range(edits):
        with watched.page.expect_response("**/api/forecast") as answer, shown.new_forecast():
            shown.event_field(EVENT, "advertiser").fill(("KONG", "Purina")[number % 2])
        whole.append(_last_edit_ms(watched.page))
        if (server_ms := answer.value.json()["server_ms"]) is not None:
            beside.append(whole[-1] - server_ms)
    watched.close()
    print(f"edit to its drawn forecast: {describe(whole)}, {edits} edits")
    print(f"  of which beside Triton's own time: {describe(beside)}, {len(beside)} edits")
    print(f"({available_processors()} processors; medians, with quartiles in brackets)")


def describe(values: list[float]) -> str:
    """Return the median and the quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.0f} ms [{low:.0f}, {high:.0f}]"


def _first_paint_ms(browser: Browser, url: str) -> float:
    watched = open_page(browser, url, SIZE)
    expect(watched.page.locator("#examples button").first).to_be_visible()
    script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    paint_ms = float(watched.page.evaluate(script))
    watched.close()
    return paint_ms


def _last_edit_ms(page: Page) -> float:
    script = "performance.getEntriesByName('edit to forecast').at(-1).duration"
    return float(page.evaluate(script))


if __name__ == "__main__":
    raise SystemExit(main())
