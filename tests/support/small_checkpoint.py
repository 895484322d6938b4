"""A minimal data set, and checkpoints and bundles made from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from adprior_runtime.cli import main
from support.data_set import InputFiles
from support.extras import code_that_hides
from support.random_checkpoint import save_gemma

NAMES = ["Acme", "Acme Pets", "Birch & Co", "Dune Coffee", "麦穗", "365"]
IDS = [101, 102, 103, 104, 105, 106]
CUT = date(2024, 2, 1)


class SmallData(InputFiles):
    """Input files of the commands; a test may overwrite them."""

    @classmethod
    def write(cls, directory: Path) -> SmallData:
        """Write 16 users of 6 events each, half of the days before the cut."""
        data = cls(directory=directory)
        data.write_events(invented_events())
        data.write_profiles(16)
        data.write_catalogue({"advertiser_id": IDS, "name": NAMES})
        data.write_columns()
        save_gemma(data.path("start"), NAMES, max_prompt_tokens=64)
        return data

    def write_catalogue(self, columns: dict[str, Any]) -> None:
        pa.parquet.write_table(pa.table(columns), self.path("catalogue.parquet"))

    def train(self, output: Path, *options: str, start: Path | None = None) -> int:
        """Run ``adprior train`` for one epoch, from ``start`` or a tiny random Gemma 3."""
        arguments = ["train", *self.log_options(), "--output", str(output)]
        arguments += ["--catalogue", str(self.path("catalogue.parquet"))]
        arguments += ["--from", str(start or self.path("start"))]
        arguments += ["--cut", CUT.isoformat(), "--test-share", "0.4", "--epochs", "1"]
        return main([*arguments, "--learning-rate", "1e-3", "--threads", "1", *options])

    def save_bundle(self, place: Path, *options: str) -> Path:
        """Train in ``place`` with ``options``; return the bundle made there."""
        assert self.train(place / "checkpoint", *options) == 0
        made = ["--checkpoint", str(place / "checkpoint"), "--save-bundle", str(place / "bundle")]
        assert build(place / "repository", *made) == 0
        return place / "bundle"


def invented_events() -> list[dict[str, Any]]:
    """Return events in which users alternate between their favourite and a common advertiser."""
    return [
        {
            "who": f"user-{user}",
            "day": CUT + timedelta(days=10 * step - 30 + user % 3),
            "brand": NAMES[user % len(NAMES)] if step % 2 else NAMES[0],
            "kind": "FOOD" if user % 2 else None,
        }
        for user in range(16)
        for step in range(6)
    ]


def build(repository: Path, *options: str) -> int:
    """Run ``adprior build`` with a small forecast and search."""
    return main(["build", "--output", str(repository), "--forecast-k", "3", *options])


def run_without_torch(*arguments: str | Path) -> None:
    """Run ``adprior`` in a process that cannot import torch and transformers."""
    run_without(("torch", "transformers"), *arguments)


def run_without(modules: Iterable[str], *arguments: str | Path) -> None:
    """Run ``adprior`` in a process that cannot import these modules."""
    code = (
        f"{code_that_hides(modules)}\n"
        "from adprior_runtime.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
