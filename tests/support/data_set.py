"""Input files of the commands, and the data set that the integration tests train a model on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from support.random_checkpoint import save_gemma

ADVERTISERS: Final = [
    "Acme", "Acme Pets", "Acme Pets Gold", "Birch & Co", "Cobalt", "Dune Coffee", "Ember", "Fjord",
    "Gable", "Heron", "Isle of Tea", "Juniper", "Kite", "Lumen", "Moss", "Nori", "Opal", "Pine",
    "Quill", "Rook", "Sable", "Tern", "Umber", "Vale", "Willow", "Xylo", "Yarrow", "Zéphyr", "麦穗",
    "365",
]  # fmt: skip
ALIASES: Final = {"Cobalt": "Cobalt Inc|Cobalt Ltd", "Ember": "Ember Candles"}
IDS: Final = {name: 100 + row for row, name in enumerate(ADVERTISERS)}
USERS: Final = 60
COLUMNS: Final = (
    '[events]\nuser = "who"\ntime = "day"\nadvertiser = "brand"\ncategory = "kind"\n'
    '[profiles]\nuser = "who"\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFiles:
    """A directory of the commands' input files."""

    directory: Path

    def path(self, name: str) -> Path:
        return self.directory / name

    def write_events(self, rows: Sequence[dict[str, Any]]) -> None:
        pa.parquet.write_table(pa.Table.from_pylist(list(rows)), self.path("events.parquet"))

    def write_profiles(self, users: int) -> None:
        rows = [{"who": f"user-{number}", "age": f"{number % 5}0s"} for number in range(users)]
        pa.parquet.write_table(pa.Table.from_pylist(rows), self.path("profiles.parquet"))

    def write_columns(self) -> None:
        """Write the column map."""
        self.path("columns.toml").write_text(COLUMNS, encoding="utf-8")

    def log_options(self) -> list[str]:
        """Return the options that name events, profiles and their columns."""
        options = ["--events", str(self.path("events.parquet"))]
        options += ["--profiles", str(self.path("profiles.parquet"))]
        return [*options, "--columns", str(self.path("columns.toml"))]


class DataSet(InputFiles):
    """Events and profiles of 60 users, and a catalogue with aliases."""

    @classmethod
    def write(cls, directory: Path) -> DataSet:
        """Write the files; each user has four favourite advertisers."""
        data = cls(directory=directory)
        data.write_events(_events())
        data.write_profiles(USERS)
        catalogue = {
            "advertiser_id": [*IDS.values()],
            "name": ADVERTISERS,
            "aliases": [ALIASES.get(name, "") for name in ADVERTISERS],
        }
        pa.csv.write_csv(pa.table(catalogue), data.path("catalogue.csv"))
        data.write_columns()
        size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
        texts = [*ADVERTISERS, *("age=20s" for _ in range(3))]
        save_gemma(data.path("start"), texts, max_prompt_tokens=96, **size)
        return data

    def train_arguments(
        self, output: Path, *, epochs: int, start: Path | None = None, learning_rate: str = "5e-3"
    ) -> list[str]:
        """Return the arguments of `adprior train`, from ``start`` or a tiny random Gemma 3."""
        arguments = ["train", *self.log_options(), "--output", str(output)]
        arguments += ["--from", str(start or self.path("start"))]
        arguments += ["--catalogue", str(self.path("catalogue.csv")), "--cut", "2024-03-01"]
        arguments += ["--test-share", "0.25", "--batch-size", "8", "--epochs", str(epochs)]
        return [*arguments, "--learning-rate", learning_rate]


def _events() -> list[dict[str, Any]]:
    random = np.random.default_rng(7)
    rows = []
    for number in range(USERS):
        favourites = random.choice(len(ADVERTISERS), size=4, replace=False)
        for _ in range(int(random.integers(3, 25))):
            name = ADVERTISERS[random.choice(favourites)]
            rows.append(
                {
                    "who": f"user-{number}",
                    "day": date(2024, 1, 1) + timedelta(days=int(random.integers(0, 90))),
                    "brand": name if random.random() < 0.9 else None,
                    "kind": f"CATEGORY_{len(name) % 5}",
                }
            )
    return rows


def user(events: int = 5, **changes: Any) -> dict[str, Any]:
    """Return the context of a user with this many events."""
    history = [
        {
            "time": f"2024-02-{1 + index % 28:02d}",
            "action": "purchase",
            "advertiser": ADVERTISERS[index * 7 % len(ADVERTISERS)],
            "category": "CATEGORY_1",
        }
        for index in range(events)
    ]
    return {"profile": {"age": "20s"}, "history": history, "as_of": "2024-03-05"} | changes
