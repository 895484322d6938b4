from __future__ import annotations

import numpy as np
import pytest
import torch

from adprior_runtime.engines.architecture import Architecture, Rotation
from adprior_runtime.engines.torch_decoder import TorchDecoder
from adprior_runtime.engines.torch_products import SingleMatrix
from adprior_runtime.engines.torch_weights import DecoderWeights

VOCABULARY, HIDDEN = 23, 6


def _decoder(final_cap: float | None) -> TorchDecoder:
    """A decoder without layers: only its output matrix matters."""
    torch.manual_seed(0)
    of = Architecture(
        vocabulary=VOCABULARY, hidden=HIDDEN, intermediate=1, layers=1, heads=1,
        key_value_heads=1, head_size=2, max_positions=8, norm_epsilon=1e-6, norm_offset=0.0,
        activation="silu", tied=False, embedding_scale=1.0, sandwich=False, attention_scale=1.0,
        attention_cap=None, final_cap=final_cap, rotations=(Rotation((1.0,)),), windows=(None,),
    )  # fmt: skip
    weights = DecoderWeights(
        embedding=SingleMatrix(torch.zeros(VOCABULARY, HIDDEN)),
        output=SingleMatrix(torch.randn(VOCABULARY, HIDDEN) * 4),
        final_norm=torch.ones(HIDDEN),
        layers=(),
    )
    return TorchDecoder(of, weights)


@pytest.mark.parametrize("final_cap", [None, 5.0])
@pytest.mark.parametrize("chunk", [1, 5, 22, 23, 100])
def test_parts_of_the_vocabulary_give_the_whole_softmax(
    chunk: int, final_cap: float | None
) -> None:
    decoder = _decoder(final_cap)
    stream = torch.randn(3, HIDDEN)
    rows = torch.arange(3).repeat_interleave(VOCABULARY)
    tokens = torch.arange(VOCABULARY).repeat(3)
    found = decoder.log_probs(stream, rows, tokens, chunk).reshape(3, -1).numpy()
    output = decoder._weights.output
    assert isinstance(output, SingleMatrix)
    normed = stream.double() / stream.double().square().mean(-1, keepdim=True).sqrt()
    logits = normed @ output.numbers.double().T
    if final_cap is not None:
        logits = torch.tanh(logits / final_cap) * final_cap
    np.testing.assert_allclose(found, torch.log_softmax(logits, -1).numpy(), atol=1e-4)


def test_no_matrix_of_all_rows_and_all_tokens_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, sizes = _decoder(None), []
    linear = torch.nn.functional.linear

    def counted(*arguments: torch.Tensor) -> torch.Tensor:
        product = linear(*arguments)
        sizes.append(tuple(product.shape))
        return product

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    decoder.log_probs(torch.randn(3, HIDDEN), torch.tensor([2]), torch.tensor([21]), chunk=10)
    assert sizes == [(3, 10), (3, 10), (3, 3)]
