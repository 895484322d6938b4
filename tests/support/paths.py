"""The checkout's folders that tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DEMO: Final = ROOT / "demo"
"""Users and a column map."""
TOOL_OUTPUTS: Final = ROOT / "tests" / "support" / "gpu_outputs"
"""What GPU tools and servers print when they fail."""
