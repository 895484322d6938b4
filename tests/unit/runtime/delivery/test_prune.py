"""``adprior push --prune``: what stays, what goes and when, beside pushes that run meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest

from adprior_runtime.delivery import prune as pruning
from adprior_runtime.delivery.store import Store, open_store
from support.deliveries import Adprior, contents, write_repository
from support.kills import run_until_killed

_DAY_S = 86_400.0


def _age(store: Path, days: float = 2.0) -> None:
    """Make everything in the store older."""
    for path in store.rglob("*"):
        written = path.stat().st_mtime - days * _DAY_S
        os.utime(path, (written, written))


def _blobs(store: Path) -> set[str]:
    return {path.name for path in (store / "blobs").rglob("*") if path.is_file()}


@pytest.fixture
def pushed(adprior: Adprior, tmp_path: Path) -> tuple[Path, list[Path], list[str]]:
    """A store with five old versions, the last one active; their directories and their ids."""
    store = tmp_path / "store"
    made = [write_repository(tmp_path / f"made-{seed}", seed=seed) for seed in range(5)]
    ids = [adprior("push", each, store)["version"] for each in made]
    _age(store)
    return store, made, ids


def test_the_last_pushes_the_active_version_and_the_one_before_it_stay(
    adprior: Adprior, pushed: tuple[Path, list[Path], list[str]], tmp_path: Path
) -> None:
    store, made, ids = pushed
    adprior("push", made[0], store, "--tag", "canary", "--keep-active")
    adprior("push", "--activate", ids[3], store)
    assert adprior("push", "--prune", "1", store)["versions"] == [ids[1]]
    listed = adprior("push", "--list", store)
    assert [each["version"] for each in listed] == [ids[4], ids[3], ids[2], ids[0]]
    assert "no such version" in adprior.error("push", "--activate", ids[1], store)
    for version in (0, 2, 3, 4):
        adprior("pull", store, tmp_path / "target", "--version", ids[version])
        assert contents(tmp_path / "target") == contents(made[version])
    assert adprior("push", "--activate", "previous", store)["version"] == ids[2]


def test_files_go_after_the_grace(
    adprior: Adprior, pushed: tuple[Path, list[Path], list[str]], tmp_path: Path
) -> None:
    store, made, ids = pushed
    before = _blobs(store)
    first = adprior("push", "--prune", "1", store)
    assert first["versions"] == sorted(ids[:3])
    assert first["condemned_files"] == 6  # a head and a manifest each
    assert (first["removed_files"], _blobs(store)) == (0, before)
    again = adprior("push", "--prune", "1", store)
    assert (again["versions"], again["condemned_files"], again["removed_files"]) == ([], 0, 0)
    _age(store)
    last = adprior("push", "--prune", "1", store)
    assert last["removed_bytes"] == first["condemned_bytes"] > 0
    assert len(_blobs(store)) == len(before) - 6
    assert list((store / "removed").iterdir()) == []
    adprior("pull", store, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(made[4])


def test_a_dry_run_removes_nothing(
    adprior: Adprior, pushed: tuple[Path, list[Path], list[str]]
) -> None:
    store, _, ids = pushed
    before = contents(store)
    assert adprior("push", "--prune", "1", "--dry-run", store)["versions"] == sorted(ids[:3])
    assert contents(store) == before
    shown = adprior.text("push", "--prune", "1", "--dry-run", store)
    assert shown.startswith("Would remove versions: ")


def test_what_is_young_stays(adprior: Adprior, first: Path, second: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for each in (first, second, write_repository(tmp_path / "third", seed=9)):
        adprior("push", each, store)
    assert adprior("push", "--prune", "1", store)["versions"] == []
    assert adprior("push", "--prune", "1", "--grace", "0.000001s", store)["versions"] != []


@pytest.fixture
def condemning(
    adprior: Adprior, pushed: tuple[Path, list[Path], list[str]]
) -> tuple[Path, list[Path], list[str]]:
    """The same store; a prune has condemned files, and the grace is over."""
    adprior("push", "--prune", "1", pushed[0])
    _age(pushed[0])
    return pushed


def _require_whole_after_a_push(adprior: Adprior, made: Path, store: Path, target: Path) -> None:
    adprior("push", made, store)
    adprior("pull", store, target)
    assert contents(target) == contents(made)


def test_a_condemned_file_that_is_pushed_again_stays(
    adprior: Adprior, condemning: tuple[Path, list[Path], list[str]], tmp_path: Path
) -> None:
    store, made, _ = condemning
    sent = adprior("push", made[0], store)["sent_bytes"]
    assert sent > 0  # what is there already is sent again, since it may go
    (store / "versions" / f"{adprior('push', '--list', store)[0]['version']}.json").unlink()
    adprior("push", "--prune", "1", store)  # as if it ran just before that push wrote its version
    _require_whole_after_a_push(adprior, made[0], store, tmp_path / "target")


def test_a_file_that_a_prune_removes_while_it_is_pushed_again_is_sent_once_more(
    adprior: Adprior,
    condemning: tuple[Path, list[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, made, ids = condemning
    condemned = pruning.read_condemned(open_store(str(store)))
    kind = type(open_store(str(store)))
    write = kind.write

    def write_beside_a_prune(self: Store, name: str, data: bytes) -> None:
        """Remove what a prune has looked at before the push sent it again."""
        if name == f"versions/{ids[0]}.json":
            for each in condemned:
                self.remove(each)
        write(self, name, data)

    monkeypatch.setattr(kind, "write", write_beside_a_prune)
    _require_whole_after_a_push(adprior, made[0], store, tmp_path / "target")


def test_a_prune_that_stops_between_look_and_removal_says_what_it_broke(
    adprior: Adprior,
    condemning: tuple[Path, list[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, made, ids = condemning
    kind = type(open_store(str(store)))
    remove = kind.remove
    pushed_again = contents(made[0]).values()

    def remove_after_a_push(self: Store, name: str) -> None:
        if name.rpartition("/")[2] in pushed_again:
            monkeypatch.undo()
            adprior("push", made[0], store)
        remove(self, name)

    monkeypatch.setattr(kind, "remove", remove_after_a_push)
    message = adprior.error("push", "--prune", "1", store)
    assert f"versions/{ids[0]}.json: pushed while this prune removed files; found 1 of" in message
    _require_whole_after_a_push(adprior, made[0], store, tmp_path / "target")


def test_leftovers_of_killed_pushes_go_too(
    adprior: Adprior, pushed: tuple[Path, list[Path], list[str]]
) -> None:
    store, _, _ = pushed
    leftover = store / "blobs" / "3f" / "3fa9.new-12"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"half")
    _age(store)
    assert adprior("push", "--prune", "9", store)["condemned_bytes"] == 4


@pytest.mark.parametrize("moment", ["activated", "pushed"])
def test_a_version_that_is_needed_again_meanwhile_stays(
    adprior: Adprior,
    pushed: tuple[Path, list[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    store, made, ids = pushed
    condemn = pruning._condemn

    def condemn_beside_another(at: Store, blobs: Mapping[str, int]) -> None:
        condemn(at, blobs)
        again = ["--activate", ids[0]] if moment == "activated" else [str(made[0])]
        adprior("push", *again, store)

    monkeypatch.setattr(pruning, "_condemn", condemn_beside_another)
    done = adprior("push", "--prune", "1", store)
    assert ids[0] in done["versions"]  # it was removed, and then written again
    adprior("pull", store, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(made[0])


def test_an_activation_writes_a_version_that_a_prune_has_just_removed(
    adprior: Adprior,
    pushed: tuple[Path, list[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, made, ids = pushed
    kind = type(open_store(str(store)))
    write = kind.write

    def write_after_a_prune(self: Store, name: str, data: bytes) -> None:
        if name == "tags/latest.json":
            monkeypatch.undo()
            assert ids[0] in adprior("push", "--prune", "1", store)["versions"]
        write(self, name, data)

    monkeypatch.setattr(kind, "write", write_after_a_prune)
    adprior("push", "--activate", ids[0], store)
    adprior("pull", store, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(made[0])


@pytest.mark.timeout(900)  # the long form
def test_a_killed_prune_loses_nothing_that_is_needed(
    adprior: Adprior,
    pushed: tuple[Path, list[Path], list[str]],
    tmp_path: Path,
    is_long: bool,
) -> None:
    old, made, _ = pushed
    adprior("push", "--prune", "3", old)
    _age(old)
    wanted, left = contents(made[4]), len(_blobs(old)) - 6
    for moment in count(1, 1 if is_long else 4):
        store = tmp_path / "copy"
        shutil.copytree(old, store)  # with the times of its files
        was_killed = run_until_killed(moment, store, "push", "--prune", "1", store)
        adprior("pull", store, tmp_path / "target")
        assert contents(tmp_path / "target") == wanted
        adprior("push", "--prune", "1", store)
        _age(store)
        adprior("push", "--prune", "1", store)
        assert len(list((store / "versions").iterdir())) == 2
        assert len(_blobs(store)) == left
        assert not list(store.rglob(".*")), "a leftover"
        shutil.rmtree(store)
        if not was_killed:
            break
    assert moment > 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run"], "--dry-run goes with --prune"),
        (["--prune", "101"], "--prune: found 101, expected 100 at most: a tag remembers no more"),
        (["--prune", "1", "--force"], "--force and --keep-active go with a REPOSITORY"),
    ],
)
def test_options_that_are_refused(
    adprior: Adprior, tmp_path: Path, first: Path, options: list[str], message: str
) -> None:
    directory = [] if "--prune" in options else [first]
    assert message in adprior.error("push", *options, *directory, tmp_path / "store")


def test_a_condemnation_that_names_other_objects_is_refused(
    adprior: Adprior, pushed: tuple[Path, list[Path], list[str]]
) -> None:
    store, _, _ = pushed
    (store / "removed").mkdir()
    bad = store / "removed" / "bad.json"
    bad.write_text('{"blobs": {"tags/latest.json": 1}}')
    assert f"{bad}: no condemnation of adprior" in adprior.error("push", "--prune", "1", store)
    assert (store / "tags" / "latest.json").is_file()


def test_a_web_server_is_not_pruned(adprior: Adprior) -> None:
    message = adprior.error("push", "--prune", "1", "http://127.0.0.1:9/store")
    assert "a prune needs a directory or an object store" in message
