"""Links files of an artefact into another directory instead of copying them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from adprior_runtime.errors import ArtefactError
from adprior_runtime.files.atomic import OTHERS_WRITE


def link_or_copy(source: Path, target: Path, *, link: bool = True) -> None:
    """Hard-link a file, or copy it if the file system cannot link.

    A file that other users may write is copied too, because they could change it afterwards.
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
