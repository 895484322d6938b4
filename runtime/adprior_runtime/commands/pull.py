"""``adprior pull``: get a bundle or model repository from a URL."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from adprior_runtime.delivery.lookup import find_version
from adprior_runtime.delivery.options import add_version_argument
from adprior_runtime.delivery.pull import Pulled, pull
from adprior_runtime.delivery.store import Store, open_store
from adprior_runtime.delivery.version import SHORT_ID
from adprior_runtime.terminal.tables import format_bytes
from adprior_runtime.text.json_text import to_json

EXAMPLE: Final = """\
examples:
  adprior pull s3://models/adprior /srv/adprior/blue
  adprior pull https://models.example/adprior repository --version 3fa9c2e01b7d

Only what DIRECTORY lacks is fetched, and every byte is checked. DIRECTORY is replaced in one step;
a pull that was killed continues when it is run again. A URL is a directory, file://, http(s)://,
s3:// (needs s3fs), gs:// (gcsfs) or az:// (adlfs). docs/delivery.md explains more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("url", metavar="URL", help="where `adprior push` put versions")
    parser.add_argument(
        "directory", type=Path, metavar="DIRECTORY", help="directory to make or to replace"
    )
    add_version_argument(parser, "--version")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Pull; return the exit code."""
    store = open_store(args.url)
    done = pull(store, find_version(store, args.version), args.directory)
    if args.json:
        print(_to_json(done, store, args.directory))
    else:
        version, name = done.version, f"{done.version.kind} {done.version_id[:SHORT_ID]}"
        changed = "now has" if done.is_changed else "had already"
        print(
            f"{args.directory} {changed} {name} (bundle {version.bundle_id}): "
            f"{len(version.files)} files, {format_bytes(version.size)}; "
            f"{format_bytes(done.fetched_bytes)} fetched."
        )
    return 0


def _to_json(done: Pulled, store: Store, directory: Path) -> str:
    document = {
        "url": store.url,
        "directory": str(directory),
        "version": done.version_id,
        "kind": done.version.kind,
        "bundle_id": done.version.bundle_id,
        "files": len(done.version.files),
        "bytes": done.version.size,
        "fetched_bytes": done.fetched_bytes,
        "changed": done.is_changed,
    }
    return to_json(document, indent=2)
