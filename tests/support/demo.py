"""The demo's folder: a bundle, users, a column map."""

from pathlib import Path

DEMO = Path(__file__).parents[2] / "demo"
