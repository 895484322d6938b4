from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pyarrow as pa
import pyarrow.parquet
import pytest
from tokenizers import Tokenizer

from adprior_build.checkpoints.checkpoint import hash_checkpoint
from adprior_build.head.onnx_head import write_identity_head
from adprior_build.repository import bundle_builder as bundle_module
from adprior_build.repository import repository_builder as repository_module
from adprior_runtime.bundle import (
    INTEREST_TRIE_DIRECTORY,
    INTERESTS_DIRECTORY,
    INTERESTS_FILE,
    MANIFEST,
    MODEL_FILES,
    Bundle,
    Manifest,
    hash_file,
)
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.cli import main
from adprior_runtime.contract import (
    ADVERTISER_DECODER,
    LLM_ENGINE,
    MODEL_NAMES,
    PRIOR_HEAD,
    TOKENIZER,
)
from adprior_runtime.engines.registry import TORCH
from adprior_runtime.head.head import PriorHead
from adprior_runtime.prompt.renderer import PromptRenderer
from support.interests import INTERESTS, TAIL, add_interests, set_interest_tail, write_interests
from support.small_checkpoint import SmallData, build, run_without_torch

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("built")
    options = ["--checkpoint", str(checkpoint), "--save-bundle", str(place / "bundle")]
    assert build(place / "repository", *options) == 0
    return place / "bundle"


@pytest.fixture(scope="module")
def repository(bundle: Path) -> Path:
    return bundle.with_name("repository")


@pytest.fixture(scope="module")
def head(shared_data: SmallData, bundle: Path) -> Path:
    """A head fitted with this bundle's forecasts of three."""
    log, output = bundle.with_name("log.parquet"), bundle.with_name("head.onnx")
    simulate = ["bench", "simulate-log", "--bundle", str(bundle), "--output", str(log)]
    assert main([*simulate, *shared_data.log_options()]) == 0
    fit = ["fit-head", "--logs", str(log), "--bundle", str(bundle), "--output", str(output)]
    assert main(fit) == 0
    return output


@pytest.fixture
def output(repository: Path, tmp_path: Path) -> Path:
    """A repository of an earlier build, to be replaced or left as it is."""
    shutil.copytree(repository, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def refused(output: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a build that must be refused; return its one line of output."""

    def run(*options: str) -> str:
        before = snapshot(output.parent)
        capsys.readouterr()
        try:
            code = main(["build", "--output", str(output), *options])
        except SystemExit as stop:
            code = int(stop.code or 0)
        error = capsys.readouterr().err
        assert code == 2
        assert error.startswith("adprior build: ")
        assert error.count("\n") == 1
        assert snapshot(output.parent) == before
        return error

    return run


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Return the inode and the modification time of every file below a directory."""
    found = {path: path.stat() for path in directory.rglob("*")}
    return {str(path): (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()}


def bundle_id(directory: Path) -> str:
    return Manifest.load(directory / MANIFEST).bundle_id


def write_catalogue(path: Path, names: dict[int, str]) -> str:
    columns: dict[str, Any] = {"advertiser_id": list(names), "name": list(names.values())}
    pa.parquet.write_table(pa.table(columns), path)
    return str(path)


def test_every_version_directory_has_links_to_the_files_that_its_model_needs(
    repository: Path, bundle: Path
) -> None:
    assert {path.name for path in repository.iterdir()} == set(MODEL_NAMES)
    for name in MODEL_NAMES:
        place = repository / name / "1" / "bundle"
        files = [path.relative_to(place) for path in place.rglob("*") if path.is_file()]
        needed = {MANIFEST, *MODEL_FILES[name]} if name in MODEL_FILES else set()
        assert {file.parts[0] for file in files} == needed - {INTERESTS_DIRECTORY, *TORCH.files}
        assert all((place / file).samefile(bundle / file) for file in files)


def test_what_others_may_write_is_copied_and_closed(bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "bundle"
    shutil.copytree(bundle, source)
    for path in source.rglob("*.onnx"):
        path.chmod(0o666)
    repository = tmp_path / "repository"
    assert main(["build", "--bundle", str(source), "--output", str(repository)]) == 0
    built = repository / LLM_ENGINE / "1" / "bundle" / "model.onnx"
    assert not built.samefile(source / "model.onnx")
    assert not [path for path in repository.rglob("*") if path.stat().st_mode & 0o002]


def test_a_build_under_an_open_umask_writes_its_repository(bundle: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    before = os.umask(0)
    try:
        assert main(["build", "--bundle", str(bundle), "--output", str(repository)]) == 0
    finally:
        os.umask(before)
    assert main(["build", "--check", str(repository)]) == 0


def test_where_links_cannot_be_made_files_are_copied(
    bundle: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    assert build(output, "--bundle", str(bundle)) == 0
    copied = output / TOKENIZER / "1" / "bundle" / "tokenizer.json"
    assert copied.read_bytes() == (bundle / "tokenizer.json").read_bytes()
    assert not copied.samefile(bundle / "tokenizer.json")


def test_the_manifest_records_how_the_bundle_was_made(checkpoint: Path, bundle: Path) -> None:
    manifest = Manifest.load(bundle / MANIFEST)
    assert manifest.forecast_k == 3
    assert 1e-5 <= manifest.log_prob_error <= 1e-4
    assert [command.split()[:2] for command in manifest.commands] == [
        ["adprior", "train"],
        ["adprior", "build"],
    ]
    assert manifest.training["split"]["test_share"] == 0.4
    assert manifest.training["checkpoint_sha256"] == hash_checkpoint(checkpoint)
    on_disk = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert set(manifest.files) == on_disk - {MANIFEST}


@pytest.mark.parametrize("source", ["bundle", "checkpoint"])
def test_a_build_needs_no_torch(
    request: pytest.FixtureRequest, tmp_path: Path, source: str
) -> None:
    place: Path = request.getfixturevalue(source)
    run_without_torch("build", f"--{source}", place, "--output", tmp_path / "repository")
    assert (tmp_path / "repository" / TOKENIZER / "1" / "bundle" / MANIFEST).is_file()


def test_a_bundle_keeps_its_id_in_another_place(bundle: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "bundle"
    shutil.copytree(bundle, moved)
    ids = []
    for place, source in (("a", bundle), ("b", moved)):
        kept = tmp_path / place / "kept"
        repository = tmp_path / place / "repository"
        options = ["--bundle", str(source), "--forecast-k", "4", "--save-bundle", str(kept)]
        assert main(["build", "--output", str(repository), *options]) == 0
        ids.append(bundle_id(kept))
    assert ids[0] == ids[1] != bundle_id(bundle)


def test_a_checkpoint_gives_the_same_bundle_in_another_place(
    checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    options = ["--checkpoint", str(tmp_path / "checkpoint")]
    options += ["--save-bundle", str(tmp_path / "bundle")]
    assert build(tmp_path / "repository", *options) == 0
    assert bundle_id(tmp_path / "bundle") == bundle_id(bundle)


def test_a_new_catalogue_changes_the_id_and_keeps_the_lineage(
    bundle: Path, output: Path, tmp_path: Path
) -> None:
    catalogue = write_catalogue(tmp_path / "new.parquet", {7: "Brand New", 101: "Acme"})
    options = ["--bundle", str(bundle), "--catalogue", catalogue]
    assert build(output, *options, "--save-bundle", str(tmp_path / "kept")) == 0
    old, new = Manifest.load(bundle / MANIFEST), Manifest.load(tmp_path / "kept" / MANIFEST)
    assert new.bundle_id != old.bundle_id
    assert new.catalogue_lineage == (old.catalogue_fingerprint, new.catalogue_fingerprint)
    assert pa.parquet.read_table(tmp_path / "kept" / "catalogue.parquet").num_rows == 2
    assert (bundle / "model.onnx").samefile(tmp_path / "kept" / "model.onnx")


@pytest.fixture(scope="module")
def interested(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with interests."""
    return add_interests(bundle, tmp_path_factory.mktemp("interested"))


def test_interests_lie_beside_the_advertisers(interested: Path) -> None:
    bundle = Bundle.open(interested)
    table = Advertisers.load(interested / INTERESTS_DIRECTORY)
    trie = Trie.load(bundle.path(INTEREST_TRIE_DIRECTORY))
    renderer = PromptRenderer.load(interested / "prompt.json", interested / "tokenizer.json")
    assert table.ids.tolist() == [7, 8, 9, 10, 11]
    assert [trie.lookup(renderer.name_ids(name)) for name in INTERESTS] == [0, 1, 2, 3, 4]
    tail = Tokenizer.from_file(str(interested / "tokenizer.json")).encode(*TAIL)
    assert list(bundle.manifest.interest_tail_ids) == tail.ids
    for model in (LLM_ENGINE, ADVERTISER_DECODER):
        place = interested.with_name("repository") / model / "1" / "bundle"
        assert (place / INTERESTS_DIRECTORY / "ids.npy").is_file()


def test_interests_stay_until_others_replace_them(interested: Path, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "new.parquet", {7: "Brand New", 101: "Acme"})
    others = write_interests(tmp_path / "others.csv", ["Tea", "Lamps"])
    for options, count in ((["--catalogue", catalogue], 5), (["--interests", str(others)], 2)):
        kept = ["--bundle", str(interested), "--save-bundle", str(tmp_path / "kept"), *options]
        assert build(tmp_path / "repository", *kept) == 0
        new = Bundle.open(tmp_path / "kept")
        assert len(Advertisers.load(new.path(INTERESTS_DIRECTORY)).ids) == count
        assert pa.parquet.read_table(new.path(INTERESTS_FILE)).num_rows == count


def test_interests_need_a_tail_in_the_template(
    refused: Refused, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_interests(tmp_path_factory.mktemp("interests") / "interests.csv")
    message = refused("--bundle", str(bundle), "--interests", str(path))
    assert f"{path}: the prompt template has no interest_tail" in message


def test_interests_of_another_tail_are_refused(
    refused: Refused, interested: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = set_interest_tail(interested, tmp_path_factory.mktemp("other") / "bundle", ["kind: "])
    assert "the interests were built with another interest_tail" in refused("--bundle", str(other))


def test_a_fitted_head_reaches_the_repository(
    bundle: Path, head: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(output, "--bundle", str(bundle)) == 0
    assert "no fitted head yet (--head)" in capsys.readouterr().err
    assert build(output, "--bundle", str(bundle), "--head", str(head)) == 0
    assert "no fitted head" not in capsys.readouterr().err
    built = output / PRIOR_HEAD / "1" / "bundle"
    assert PriorHead(built / "head.onnx").metadata["kind"] == "logistic"
    assert bundle_id(built) != bundle_id(bundle)


def test_a_later_change_of_the_heads_file_does_not_reach_the_repository(
    bundle: Path, head: Path, output: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.onnx"
    shutil.copyfile(head, mine)
    assert build(output, "--bundle", str(bundle), "--head", str(mine)) == 0
    mine.write_bytes(b"overwritten")
    Bundle.open(output / PRIOR_HEAD / "1" / "bundle", MODEL_FILES[PRIOR_HEAD])


def test_forecasts_of_another_length_than_the_heads_are_refused(
    refused: Refused, bundle: Path, head: Path
) -> None:
    options = ("--bundle", str(bundle), "--head", str(head), "--forecast-k", "5")
    assert f"{head}: fitted with forecast_k 3, the bundle's is 5" in refused(*options)


def test_a_bundle_with_a_fitted_head_keeps_its_forecasts_length(
    refused: Refused, bundle: Path, head: Path, tmp_path: Path
) -> None:
    kept = tmp_path.parent / f"{tmp_path.name}-kept"
    options = ["--bundle", str(bundle), "--head", str(head), "--save-bundle", str(kept)]
    assert build(tmp_path.parent / f"{tmp_path.name}-repository", *options) == 0
    message = refused("--bundle", str(kept), "--forecast-k", "5")
    assert f"{kept / 'head.onnx'}: fitted with forecast_k 3" in message
    assert "fit one on this bundle's answers (adprior fit-head)" in message


def test_a_head_that_changes_nothing_follows_the_forecasts_length(
    bundle: Path, output: Path
) -> None:
    assert (
        main(["build", "--output", str(output), "--bundle", str(bundle), "--forecast-k", "5"]) == 0
    )
    metadata = PriorHead(output / PRIOR_HEAD / "1" / "bundle" / "head.onnx").metadata
    assert metadata["forecast_k"] == "5"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"catalogue_fingerprint": "c0ffee"}, "fitted with catalogue c0ffee"),
        ({"engine": "abacus"}, "fitted with engine abacus, the bundle's is onnx"),
        ({"forecast_k": 7}, "fitted with forecast_k 7, the bundle's is 3"),
    ],
)
def test_a_head_made_for_something_else_is_refused(
    refused: Refused,
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
    changed: dict[str, Any],
    message: str,
) -> None:
    manifest = Manifest.load(bundle / MANIFEST)
    names = ("catalogue_fingerprint", "engine", "forecast_k")
    path = tmp_path_factory.mktemp("head") / "head.onnx"
    write_identity_head(path, **{name: getattr(manifest, name) for name in names} | changed)
    assert f"{path}: {message}" in refused("--bundle", str(bundle), "--head", str(path))


def test_a_graph_of_an_earlier_version_is_refused(
    refused: Refused, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    old = tmp_path_factory.mktemp("old") / "bundle"
    shutil.copytree(bundle, old)
    graph = onnx.load(str(old / "model.onnx"))
    del graph.metadata_props[:]
    onnx.save(graph, str(old / "model.onnx"))
    manifest = Manifest.load(old / MANIFEST)
    files = {**manifest.files, "model.onnx": hash_file(old / "model.onnx")}
    (old / MANIFEST).write_text(replace(manifest, files=files).sealed().to_json())
    expected = "the graph has contract 1, expected 3: another version of adprior wrote it; build"
    assert expected in refused("--bundle", str(old))


@pytest.fixture
def earlier_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes a bundle with a head of an earlier version, of a given kind."""

    def make(kind: str) -> Path:
        place = tmp_path_factory.mktemp("earlier") / "bundle"
        shutil.copytree(bundle, place)
        head = onnx.load(str(place / "head.onnx"))
        del head.graph.output[1]
        next(item for item in head.metadata_props if item.key == "kind").value = kind
        onnx.save(head, str(place / "head.onnx"))
        manifest = Manifest.load(place / MANIFEST)
        files = {**manifest.files, "head.onnx": hash_file(place / "head.onnx")}
        (place / MANIFEST).write_text(replace(manifest, files=files).sealed().to_json())
        return place

    return make


@pytest.mark.parametrize("kind", ["identity", "logistic"])
def test_a_new_head_replaces_one_of_an_earlier_version(
    earlier_bundle: Callable[[str], Path], head: Path, output: Path, kind: str
) -> None:
    assert build(output, "--bundle", str(earlier_bundle(kind)), "--head", str(head)) == 0
    built = output / PRIOR_HEAD / "1" / "bundle" / "head.onnx"
    assert PriorHead(built).metadata["kind"] == "logistic"


@pytest.mark.parametrize("options", [(), ("--forecast-k", "3")])
def test_a_head_of_an_earlier_version_that_changes_nothing_is_written_anew(
    earlier_bundle: Callable[[str], Path], output: Path, options: tuple[str, ...]
) -> None:
    source = earlier_bundle("identity")
    assert main(["build", "--output", str(output), "--bundle", str(source), *options]) == 0
    built = output / PRIOR_HEAD / "1" / "bundle"
    assert not PriorHead(built / "head.onnx").is_fitted
    assert bundle_id(built) != bundle_id(source)


def test_a_fitted_head_of_an_earlier_version_is_refused(
    refused: Refused, earlier_bundle: Callable[[str], Path]
) -> None:
    source = earlier_bundle("logistic")
    message = refused("--bundle", str(source))
    assert f"{source / 'head.onnx'}: a head of an earlier version of adprior: found" in message
    assert "(adprior build --bundle BUNDLE --head HEAD)" in message


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07"])
def test_a_file_that_is_not_a_head_is_refused(
    refused: Refused, bundle: Path, tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("head") / "head.onnx"
    path.write_bytes(content)
    assert f"{path}: not a prior head" in refused("--bundle", str(bundle), "--head", str(path))


def test_long_names_are_reported_and_refused_if_the_limit_makes_them_equal(
    bundle: Path, tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = write_catalogue(tmp_path / "long.parquet", {7: "Acme Pets " * 8, 101: "Acme"})
    assert build(tmp_path / "new", "--bundle", str(bundle), "--catalogue", catalogue) == 0
    said = capsys.readouterr().err
    assert "longer than 64 characters: 1;" in said
    assert "max_field_chars" in said
    long = "Acme Pets " * 8
    catalogue = write_catalogue(tmp_path / "same.parquet", {7: f"{long}a", 8: f"{long}b"})
    message = refused("--bundle", str(bundle), "--catalogue", catalogue)
    assert "the same in their first 64 characters" in message
    assert "max_field_chars" in message


@pytest.mark.parametrize("option", ["--head", "--catalogue"])
def test_a_directory_in_a_files_place_is_refused(
    refused: Refused, bundle: Path, option: str
) -> None:
    assert str(bundle.parent) in refused("--bundle", str(bundle), option, str(bundle.parent))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one of the arguments --checkpoint --bundle --check is required"),
        (["--checkpoint", "{here}", "--bundle", "{bundle}"], "not allowed with"),
        (["--checkpoint", "{here}/none"], "none: no such file or directory"),
        (["--checkpoint", "{bundle}"], "not a checkpoint of `adprior train` (no training.json)"),
        (["--bundle", "{here}/none"], "none: no such file or directory"),
        (["--bundle", "{here}"], "not a bundle (no manifest.json)"),
        (["--bundle", "{bundle}", "--head", "{here}/none"], "--head"),
        (["--bundle", "{bundle}", "--catalogue", "{here}/none"], "--catalogue"),
        (["--bundle", "{bundle}", "--forecast-k", "0"], "--forecast-k"),
        (["--bundle", "{bundle}", "--beam-width", "-1"], "--beam-width"),
        (["--bundle", "{bundle}", "--token-budget", "1.5"], "--token-budget"),
        (["--bundle", "{bundle}", "--candidate-token-budget", "x"], "--candidate-token-budget"),
        (["--bundle", "{bundle}", "--search-mode", "guess"], "--search-mode"),
        (["--bundle", "{bundle}", "--engine", "crystal-ball"], "--engine"),
        (["--bundle", "{bundle}", "--json"], "--json and --allow-missing-engine go with --check"),
        (["--bundle", "{bundle}", "--check", "{out}"], "not allowed with"),
        (["--bundle", "{bundle}", "--save-bundle", "{out}"], "must not contain each other"),
        (["--bundle", "{bundle}", "--save-bundle", "{out}/b"], "must not contain each other"),
        (["--bundle", "{bundle}", "--save-bundle", "{here}"], "must not contain each other"),
    ],
)
def test_wrong_options_are_refused(
    refused: Refused, bundle: Path, output: Path, options: list[str], message: str
) -> None:
    places = {"here": output.parent, "bundle": bundle, "out": output}
    assert message in refused(*(option.format(**places) for option in options))


def test_a_corrupt_bundle_is_refused(
    refused: Refused, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = tmp_path_factory.mktemp("broken") / "bundle"
    shutil.copytree(bundle, broken)
    (broken / "tokenizer.json").write_text("{}")
    assert f"{broken / 'tokenizer.json'}: corrupt or swapped" in refused("--bundle", str(broken))


@pytest.mark.parametrize("name", ["tokenizer.json", "prompt.json", "popularity.parquet"])
def test_a_checkpoint_that_lacks_a_file_is_refused(
    refused: Refused, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    broken = tmp_path_factory.mktemp("broken") / "checkpoint"
    shutil.copytree(checkpoint, broken)
    (broken / name).unlink()
    assert f"{broken / name}: missing" in refused("--checkpoint", str(broken))


@pytest.mark.parametrize("content", ["", "{}", "[]", "not JSON"])
def test_a_checkpoint_with_a_wrong_record_is_refused(
    refused: Refused,
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
    content: str,
) -> None:
    broken = tmp_path_factory.mktemp("broken") / "checkpoint"
    shutil.copytree(checkpoint, broken)
    (broken / "training.json").write_text(content)
    assert "training.json" in refused("--checkpoint", str(broken))


def test_a_directory_that_is_not_ours_is_refused_and_left_alone(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("years")
    assert build(tmp_path, "--bundle", str(bundle)) == 2
    assert f"{tmp_path}: exists and is not an earlier output" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("module", [bundle_module, repository_module])
def test_a_full_disk_leaves_the_old_repository(
    refused: Refused, bundle: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    def fill(source: Path, target: Path, **options: bool) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(module, "link_or_copy", fill)
    assert "No space left on device" in refused("--bundle", str(bundle))
