"""A model whose lower layers are left out, because what they compute never changes.

Only the upper layers are trained. The lower ones run once for each window, and their output is kept
(`adprior_build.training.lower_states`). From the second epoch on, a step costs the upper layers'
share.
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


class LayerSplit:
    """A model's lower and upper layers, which run apart from each other.

    Args:
        model: A causal language model.
        upper: Number of upper layers.
    """

    def __init__(self, model: Any, upper: int) -> None:
        self._decoder = model.get_decoder()
        self._layers = self._decoder.layers
        self.lower = lower_count(model, upper)
        for layer in self._layers[: self.lower]:
            layer.eval()

    def run_lower(self, ids: torch.Tensor) -> torch.Tensor:
        """Return what the first upper layer reads: [sequences, longest, hidden].

        Args:
            ids: int64 [sequences, longest].
        """
        norm, self._decoder.norm = self._decoder.norm, _Nothing()
        try:
            with torch.no_grad(), self._showing(range(self.lower)):
                found = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
        finally:
            self._decoder.norm = norm
        hidden: torch.Tensor = found
        return hidden

    @contextmanager
    def only_upper(self) -> Iterator[None]:
        """Leave the lower layers out: the model then reads their output instead of embeddings."""
        with self._showing(range(self.lower, len(self._layers))):
            yield

    @contextmanager
    def _showing(self, places: range) -> Iterator[None]:
        """Leave out all other layers; these keep their places, which decide about their masks."""
        before = self._decoder.layers
        self._decoder.layers = torch.nn.ModuleList(
            layer if place in places else _Nothing() for place, layer in enumerate(self._layers)
        )
        try:
            yield
        finally:
            self._decoder.layers = before
