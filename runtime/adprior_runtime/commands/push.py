"""``adprior push``: put a bundle or model repository at a URL, or go back to an older one there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from adprior_runtime.delivery.lookup import read_present_tag
from adprior_runtime.delivery.prune import Pruned, prune
from adprior_runtime.delivery.push import Pushed, activate_version, push
from adprior_runtime.delivery.store import Store, open_store
from adprior_runtime.delivery.tag import LATEST, Tag
from adprior_runtime.delivery.version import SHORT_ID
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import duration, positive_integer
from adprior_runtime.terminal.tables import Column, format_bytes, format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE: Final = """\
examples:
  adprior push repository s3://models/adprior
  adprior push --list s3://models/adprior
  adprior push --activate previous s3://models/adprior    # back to the version before
  adprior push --prune 5 --dry-run s3://models/adprior    # what may go, but for the last 5

Only what the URL lacks is sent. A URL is a directory, file://, s3:// (needs s3fs), gs:// (gcsfs) or
az:// (adlfs); each package finds its credentials itself. docs/delivery.md explains more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        metavar="REPOSITORY",
        help="model repository or bundle to push",
    )
    parser.add_argument("url", metavar="URL", help="where to, such as s3://BUCKET/PATH")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--activate",
        metavar="VERSION",
        help="push nothing; let pulls get this version: the beginning of its id, its bundle's id, "
        "or `previous`, the one active before",
    )
    action.add_argument("--list", action="store_true", help="list the versions; push nothing")
    action.add_argument(
        "--prune",
        type=positive_integer,
        metavar="N",
        help="push nothing; remove all versions but the last N (100 at most) of each tag, the "
        "active one and the one before it. Their files go with the first --prune after --grace",
    )
    parser.add_argument(
        "--tag",
        default=LATEST,
        metavar="NAME",
        help="name under which versions are pushed and pulled (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-active",
        action="store_true",
        help="push only; pulls get the version that they had until --activate",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="send everything, also what the URL has: repairs a corrupt or missing blob",
    )
    parser.add_argument(
        "--grace",
        type=duration,
        default=86_400.0,
        metavar="TIME",
        help="with --prune: longer than any push or pull takes (default: 24h)",
    )
    parser.add_argument("--dry-run", action="store_true", help="with --prune: remove nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Push, activate or list; return the exit code."""
    is_push = args.activate is None and not args.list and args.prune is None
    if is_push != (args.directory is not None):
        raise InvalidInputError(
            "expected REPOSITORY and URL"
            if is_push
            else f"{args.directory}: --list, --activate and --prune take the URL only"
        )
    if not is_push and (args.force or args.keep_active):
        raise InvalidInputError("--force and --keep-active go with a REPOSITORY")
    if args.dry_run and args.prune is None:
        raise InvalidInputError("--dry-run goes with --prune")
    store = open_store(args.url)
    if args.list:
        _print_versions(read_present_tag(store, args.tag), as_json=args.json)
    elif args.prune is not None:
        done = prune(store, args.prune, grace_s=args.grace, is_dry=args.dry_run)
        print(to_json(done.to_json(), indent=2) if args.json else _describe_prune(done))
    elif args.activate is not None:
        _activate(store, args)
    else:
        pushed = push(
            args.directory, store, args.tag, activate=not args.keep_active, force=args.force
        )
        _print_push(pushed, store, args)
    return 0


def _print_push(done: Pushed, store: Store, args: argparse.Namespace) -> None:
    version = done.version
    if args.json:
        document: dict[str, Any] = {
            "url": store.url,
            "tag": args.tag,
            "version": version.id,
            "kind": version.kind,
            "bundle_id": version.bundle_id,
            "files": len(version.files),
            "bytes": version.size,
            "sent_bytes": done.sent_bytes,
            "active": done.is_active,
            "previous": done.previous or None,
        }
        print(to_json(document, indent=2))
        return
    print(
        f"Pushed {version.kind} {version.id[:SHORT_ID]} (bundle {version.bundle_id}) to "
        f"{store.url}: {len(version.files)} files, {format_bytes(version.size)}; "
        f"{format_bytes(done.sent_bytes)} sent."
    )
    if not done.is_active:
        print(f"Pulls of {args.tag} still get {done.previous[:SHORT_ID] or 'nothing'}.")


def _describe_prune(done: Pruned) -> str:
    """Return what a prune did, or would do, as text."""
    would = "Would remove" if done.is_dry else "Removed"
    versions = ", ".join(each[:SHORT_ID] for each in done.versions) or "none"
    return (
        f"{would} versions: {versions}. Files that go after the grace: {len(done.condemned)}, "
        f"{format_bytes(sum(done.condemned.values()))}.\n"
        f"{would} files of earlier prunes: {len(done.removed)}, "
        f"{format_bytes(sum(done.removed.values()))}."
    )


def _activate(store: Store, args: argparse.Namespace) -> None:
    entry, previous = activate_version(store, args.tag, args.activate)
    if args.json:
        document = {
            "url": store.url,
            "tag": args.tag,
            "version": entry.version,
            "kind": entry.kind,
            "bundle_id": entry.bundle_id,
            "active": True,
            "previous": previous or None,
        }
        print(to_json(document, indent=2))
    else:
        before = previous[:SHORT_ID] or "nothing"
        print(
            f"Pulls of {args.tag} now get {entry.version[:SHORT_ID]} (bundle {entry.bundle_id}, "
            f"pushed {entry.pushed}). Before: {before}."
        )


def _print_versions(tag: Tag, *, as_json: bool) -> None:
    if as_json:
        listed = [
            {
                "version": entry.version,
                "kind": entry.kind,
                "bundle_id": entry.bundle_id,
                "bytes": entry.size,
                "pushed": entry.pushed,
                "active": entry.version == tag.active,
            }
            for entry in tag.entries
        ]
        print(to_json(listed, indent=2))
        return
    columns: list[Column] = [
        ("version", "left"),
        ("bundle", "left"),
        ("kind", "left"),
        ("size", "right"),
        ("pushed", "left"),
        ("", "left"),
    ]
    rows = [
        [
            entry.version[:SHORT_ID],
            entry.bundle_id,
            entry.kind,
            format_bytes(entry.size),
            entry.pushed,
            "active" if entry.version == tag.active else "",
        ]
        for entry in tag.entries
    ]
    print(format_table(columns, rows) if rows else "No version was pushed.")
