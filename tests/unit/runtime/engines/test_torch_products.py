from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adprior_build.onnx_graph.architecture import read_architecture
from adprior_build.onnx_graph.reference import Reference
from adprior_build.torch_model.bfloat16 import product_in_parts
from adprior_build.torch_model.write_model import TORCH_PRECISIONS, write_torch_model
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines import torch_engine, torch_products
from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.pass_loop import PassLoop
from adprior_runtime.engines.registry import BFLOAT16_PARTS, SINGLE_PRECISION, TORCH
from adprior_runtime.engines.torch_engine import TorchEngine
from adprior_runtime.engines.torch_products import (
    MatrixInParts,
    SingleMatrix,
    hold_matrix,
    split_numbers,
)
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchSettings
from adprior_runtime.search.tree import read_prompt
from support.small_models import FAMILIES, VOCABULARY, small_llama, weights_of
from support.whole_vocabulary import extend_all, prefill_all

END = 0
LARGEST = torch.finfo(torch.bfloat16).max
LARGEST_ERROR = 1e-4
"""Of a small model, in nats; the families have up to 1.9e-5."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def held_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """Hold parts as bfloat16, and stand in for the product that torch has on GPUs only.

    The stand-in is called by torch's own dispatcher, so with the signature of `torch.mm`.

    Yields:
        The shapes of the products' results.
    """
    shapes: list[torch.Size] = []

    def mm(left: torch.Tensor, right: torch.Tensor, out_dtype: torch.dtype) -> torch.Tensor:
        assert left.dtype == right.dtype == torch.bfloat16
        assert out_dtype == torch.float32
        found = left.float() @ right.float()
        shapes.append(found.shape)
        return found

    monkeypatch.setattr(torch_products, "_held_type", lambda _: torch.bfloat16)
    library: Any = torch.library  # without types
    added = library.Library("aten", "IMPL")
    added.impl("mm.dtype", mm, "CPU")
    yield shapes
    added._destroy()


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_three_parts_are_the_number_itself() -> None:
    exponents = torch.arange(-100, 126).float()
    numbers = torch.cat(
        [_random(10_000), _random(226, seed=1) * exponents.exp2(), torch.tensor([0.0, -0.0])]
    )
    parts = split_numbers(numbers)
    assert all(part.dtype == torch.bfloat16 for part in parts)
    large, middle, small = (part.double() for part in parts)
    assert torch.equal(large + middle + small, numbers.double())
    assert (middle.abs() <= 2.0**-8 * large.abs()).all()
    assert (small.abs() <= 2.0**-16 * large.abs()).all()


def test_subnormal_numbers_lose_less_than_the_smallest_bfloat16() -> None:
    numbers = _random(1000) * 2.0**-127
    assert (numbers.abs() < torch.finfo(torch.float32).tiny).any()
    found = sum(part.double() for part in split_numbers(numbers))
    assert ((found - numbers).abs() <= 2.0**-134).all()


@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan, 3.4e38])
def test_what_bfloat16_does_not_hold_becomes_nan(number: float) -> None:
    values = torch.tensor([[number, 1.0]])
    assert hold_matrix(torch.ones(3, 2), BFLOAT16_PARTS).product(values).isnan().all()
    assert hold_matrix(values, BFLOAT16_PARTS).product(torch.ones(3, 2)).isnan().all()


def test_the_largest_bfloat16_passes() -> None:
    found = hold_matrix(torch.eye(2), BFLOAT16_PARTS).product(torch.tensor([[LARGEST, 1.0]]))
    assert found.tolist() == [[LARGEST, 1.0]]


@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_a_product_is_as_exact_as_in_single_precision(is_bfloat16: bool) -> None:
    values, matrix, bias = _random(2, 5, 64), _random(7, 64, seed=1), _random(7, seed=2)
    if is_bfloat16:
        matrix = matrix.bfloat16().float()
    found = hold_matrix(matrix, BFLOAT16_PARTS).product(values, bias)
    assert found.shape == (2, 5, 7)
    assert found.dtype == torch.float32
    exact = values.double() @ matrix.double().T + bias.double()
    size = values.double().abs() @ matrix.double().abs().T + bias.double().abs()
    assert ((found - exact).abs() <= 2.0**-22 * size).all()
    rows = values.flatten(0, 1).numpy()
    mine = product_in_parts(rows, matrix.numpy().T) + bias.numpy()
    np.testing.assert_allclose(found.flatten(0, 1), mine, atol=1e-5)


@pytest.mark.parametrize("products", TORCH.products)
@pytest.mark.parametrize("most", [1, 8, 23, 24, 1000])
def test_blocks_of_rows_are_the_matrix(products: str, most: int) -> None:
    values, matrix = _random(3, 16), _random(23, 16, seed=1)
    held = hold_matrix(matrix, products)
    blocks = held.split(most)
    assert sum(block.outputs for block in blocks) == held.outputs == 23
    found = torch.cat([block.product(values) for block in blocks], dim=-1)
    torch.testing.assert_close(found, held.product(values), atol=1e-6, rtol=0)
    wanted = torch.tensor([[3, 22], [0, 3]])
    torch.testing.assert_close(held.rows(wanted), matrix[wanted], atol=1e-4, rtol=0)


def test_a_block_holds_no_more_products_than_it_says() -> None:
    blocks = hold_matrix(_random(64, 8), BFLOAT16_PARTS).split(16)
    assert max(3 * block.outputs for block in blocks) <= 16


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_a_matrix_of_bfloat16_has_one_part_however_it_is_stored(stored: torch.dtype) -> None:
    matrix = _random(4, 8).bfloat16().to(stored)
    held = hold_matrix(matrix, BFLOAT16_PARTS)
    assert isinstance(held, MatrixInParts)
    assert len(held.parts) == 1
    assert torch.equal(held.rows(torch.arange(4)), matrix.float())
    assert isinstance(hold_matrix(matrix, SINGLE_PRECISION), SingleMatrix)


def test_a_gpu_holds_two_bytes_a_number_of_each_part(held_as_on_a_gpu: list[torch.Size]) -> None:
    matrix = _random(4, 8)
    for numbers, parts in ((matrix, 3), (matrix.bfloat16(), 1)):
        held = hold_matrix(numbers, BFLOAT16_PARTS)
        assert isinstance(held, MatrixInParts)
        assert [part.nbytes for part in held.parts] == [2 * 32] * parts
        single = hold_matrix(numbers, SINGLE_PRECISION)
        assert isinstance(single, SingleMatrix)
        assert single.numbers.nbytes == 4 * 32
    assert not held_as_on_a_gpu


def test_each_part_of_a_matrix_is_read_once(held_as_on_a_gpu: list[torch.Size]) -> None:
    values, matrix = _random(2, 5, 8), _random(4, 8, seed=1)
    hold_matrix(matrix, BFLOAT16_PARTS).product(values)
    assert held_as_on_a_gpu == [(10, 4), (20, 4), (30, 4)]
    held_as_on_a_gpu.clear()
    hold_matrix(matrix.bfloat16(), BFLOAT16_PARTS).product(values)
    assert held_as_on_a_gpu == [(30, 4)]


def _write(make: Callable[[], Any], directory: Path, precision: str) -> Reference:
    """Write a model; return it in double precision, with the stored matrices."""
    model = make()
    config, weights = model.config.to_dict(), weights_of(model)
    write_torch_model(config, weights, directory, precision=precision)
    return Reference(read_architecture(config), weights, TORCH_PRECISIONS[precision])


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("precision", TORCH_PRECISIONS)
def test_every_family_agrees_with_double_precision(
    make: Callable[[], Any], precision: str, tmp_path: Path
) -> None:
    reference = _write(make, tmp_path, precision)
    engine = TorchEngine(tmp_path, threads=1, products=BFLOAT16_PARTS)
    prompt = np.random.default_rng(0).integers(0, VOCABULARY, 30).tolist()
    state, root = prefill_all(engine, prompt, VOCABULARY)
    tree = extend_all(engine, state, [4, 5, 6], [ROOT, 0, 1], VOCABULARY)
    found = np.stack([root, *tree])
    expected = reference.log_probs([[*prompt, 4, 5, 6]], 4)[0]
    error = np.abs(found - expected).max()
    assert 0 < error <= LARGEST_ERROR


@pytest.mark.parametrize("make", FAMILIES)
def test_certified_answers_are_those_of_brute_force_alone_and_together(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    reference = _write(make, tmp_path, "bf16")
    engine = TorchEngine(tmp_path, threads=1, products=BFLOAT16_PARTS)
    random = np.random.default_rng(4)
    names = sorted({(*random.integers(1, 9, random.integers(1, 4)).tolist(),) for _ in range(30)})
    trie = Trie.build([(*name, END) for name in names], range(len(names)))
    prompts = [random.integers(0, VOCABULARY, length).tolist() for length in (12, 3, 25)]
    margin = 2 * LARGEST_ERROR * np.sqrt(2 * 4)
    settings = SearchSettings(width=4, token_budget=10_000, margin_nats=margin)

    def search(prompt: list[int]) -> Any:
        return TrieSearch(engine, trie, read_prompt(engine, trie, prompt), settings).run(5)

    answers: dict[int, Any] = {}

    def answer(user: int) -> None:
        answers[user] = search(prompts[user])

    PassLoop().run([partial(answer, user) for user in range(len(prompts))], most=3)
    certified = 0
    for user, prompt in enumerate(prompts):
        true = np.array([_log_prob(reference, prompt, (*name, END)) for name in names])
        best, gap = np.argsort(-true)[:5], np.sort(true)[-5] - np.sort(true)[-6]
        for found in (answers[user], search(prompt)):
            assert found.exact or gap <= 2 * margin
            certified += found.exact
            assert (
                not found.exact or trie.leaf_advertiser[found.leaves[:5]].tolist() == best.tolist()
            )
            np.testing.assert_allclose(found.log_probs[:5], true[best], atol=margin)
    assert certified


def _log_prob(reference: Reference, prompt: list[int], path: tuple[int, ...]) -> float:
    rows = reference.log_probs([[*prompt, *path[:-1]]], len(path))[0]
    return float(rows[np.arange(len(path)), path].sum())


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("precision", TORCH_PRECISIONS)
def test_with_a_stand_in_for_a_gpus_product_it_agrees_with_double_precision(
    make: Callable[[], Any],
    precision: str,
    tmp_path: Path,
    held_as_on_a_gpu: list[torch.Size],
) -> None:
    reference = _write(make, tmp_path, precision)
    engine = TorchEngine(tmp_path, threads=1, products=BFLOAT16_PARTS)
    prompt = np.random.default_rng(1).integers(0, VOCABULARY, 20).tolist()
    _, found = prefill_all(engine, prompt, VOCABULARY)
    expected = reference.log_probs([prompt], 1)[0, 0]
    np.testing.assert_allclose(found, expected, atol=LARGEST_ERROR)
    assert held_as_on_a_gpu


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("precision", TORCH_PRECISIONS)
def test_a_gpu_agrees_with_double_precision(
    make: Callable[[], Any], precision: str, tmp_path: Path
) -> None:
    reference = _write(make, tmp_path, precision)
    engine = TorchEngine(tmp_path, device="cuda", products=BFLOAT16_PARTS)
    prompt = np.random.default_rng(1).integers(0, VOCABULARY, 20).tolist()
    _, found = prefill_all(engine, prompt, VOCABULARY)
    expected = reference.log_probs([prompt], 1)[0, 0]
    np.testing.assert_allclose(found, expected, atol=5 * LARGEST_ERROR)  # its sums are cut off


def test_sums_in_bfloat16_are_forbidden(tmp_path: Path) -> None:
    _write(small_llama, tmp_path, "bf16")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
    TorchEngine(tmp_path, threads=1, products=BFLOAT16_PARTS)
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction


def test_a_gpu_without_products_of_bfloat16_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(small_llama, tmp_path, "bf16")
    monkeypatch.setattr(torch_engine, "_usable_device", torch.device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(EnvironmentProblemError) as caught:
        TorchEngine(tmp_path, device="cuda", products=BFLOAT16_PARTS)
    assert str(caught.value) == (
        "device cuda: Tesla T4 has no products of bfloat16; build the bundle with --products fp32"
    )
