"""A model whose lower layers are left out, because what they compute never changes.

Only the upper layers are trained. The lower ones run once for each window, and their output is kept
(`adprior_build.training.lower_states`). A step then costs the upper layers' share.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from adprior_runtime.errors import InvalidInputError


class _Nothing(torch.nn.Module):
    """Stands where a layer was and returns what it is given."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden


def lower_count(model: Any, upper: int) -> int:
    """Return how many layers are below the ``upper`` ones.

    Raises:
        InvalidInputError: The model has no more layers than that.
    """
    layers = len(model.get_decoder().layers)
    if upper >= layers:
        raise InvalidInputError(
            f"--upper-layers {upper}: the checkpoint has {layers} layers; leave the option out to "
            "train all of them"
        )
    return layers - upper


def freeze_lower_layers(model: Any, upper: int) -> None:
    """Let only the ``upper`` layers and what follows them be trained; tied embeddings are not."""
    kept = [*model.get_decoder().layers[lower_count(model, upper) :], model.get_decoder().norm]
    if not model.config.get_text_config().tie_word_embeddings:
        kept.append(model.get_output_embeddings())
    model.requires_grad_(requires_grad=False)
    for module in kept:
        module.requires_grad_(requires_grad=True)


def run_lower_layers(model: Any, upper: int, ids: torch.Tensor) -> torch.Tensor:
    """Return what the first of the ``upper`` layers reads: [sequences, longest, hidden].

    Args:
        model: A causal language model.
        upper: Number of upper layers.
        ids: int64 [sequences, longest].
    """
    decoder = model.get_decoder()
    norm, decoder.norm = decoder.norm, _Nothing()
    try:
        with _left_out(decoder, range(lower_count(model, upper), len(decoder.layers))):
            hidden: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        decoder.norm = norm
    return hidden


@contextmanager
def only_upper_layers(model: Any, upper: int) -> Iterator[None]:
    """Leave the lower layers out: the model then reads their output instead of embeddings."""
    decoder = model.get_decoder()
    with _left_out(decoder, range(lower_count(model, upper))):
        yield


@contextmanager
def _left_out(decoder: Any, places: range) -> Iterator[None]:
    """Replace layers; the others keep their places, by which models choose a layer's mask."""
    layers = decoder.layers
    shown = [_Nothing() if place in places else layer for place, layer in enumerate(layers)]
    decoder.layers = torch.nn.ModuleList(shown)
    try:
        yield
    finally:
        decoder.layers = layers
