"""The commands of docs/delivery.md, with a directory in the place of the bucket."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from adprior_runtime.delivery.staging import PART_BYTES
from adprior_runtime.delivery.tag import MOST_ENTRIES
from adprior_runtime.delivery.urls import PACKAGES
from support.deliveries import Adprior, contents
from support.paths import ROOT
from support.processes import run

PAGE = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_do_what_the_page_says(
    adprior: Adprior, first: Path, second: Path, tmp_path: Path
) -> None:
    publish, back = (
        block.replace("s3://models", str(tmp_path / "bucket")).replace("/srv", str(tmp_path))
        for block in BLOCKS
    )
    bucket, target = tmp_path / "bucket" / "adprior", tmp_path / "adprior" / "blue"
    adprior("push", first, bucket)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for block, wanted in ((publish, second), (back, first)):
        done = run(
            "bash",
            "-ec",
            block.replace("push repository", f"push {second}"),
            env=os.environ | {"PATH": path},
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert contents(target) == contents(wanted)


def test_the_page_has_the_codes_numbers() -> None:
    assert f"parts of {PART_BYTES >> 20} MiB" in PAGE
    assert f"its last {MOST_ENTRIES} pushes" in PAGE
    assert {package for package in PACKAGES.values() if f"`{package}`" not in PAGE} == {"s3fs"}
