"""Files of an artefact, linked into another directory instead of copied."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from adprior_runtime.errors import ArtefactError
from adprior_runtime.files.atomic import OTHERS_WRITE


def link_or_copy(source: Path, target: Path, *, link: bool = True) -> None:
    """Hard-link a file, or copy it where the file system cannot.

    A file that others may write is copied too, because they could change it afterwards.
    """
    try:
        if not link or source.stat().st_mode & OTHERS_WRITE:
            raise OSError
        os.link(source, target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError as error:
            raise ArtefactError(f"{source}: missing") from error
