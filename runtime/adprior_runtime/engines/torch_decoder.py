"""The decoder in torch: norms, attention over prompt and tree, gated MLP.

Values have an axis for users, [users, new, hidden]: a pass reads as many tokens of each user as of
the one with most. Attention heads that share keys and values are rows of one product, so keys and
values are not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  torch's own name for it

from adprior_runtime.engines.architecture import Architecture, Rotation
from adprior_runtime.engines.base import VOCABULARY_CHUNK
from adprior_runtime.engines.torch_cache import PassCache
from adprior_runtime.engines.torch_weights import DecoderWeights, LayerWeights, Linear

_Turn = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTensors:
    """The inputs that all layers of a pass share, on the device.

    Attributes:
        token_ids: int64 [users, new].
        positions: int64 [users, new].
        visible: bool [users, new, past + new], which positions each new one sees.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor


class TorchDecoder:
    """Runs all layers of one language model.

    Args:
        of: Its architecture.
        weights: Its weights; they say which device computes.
    """

    def __init__(self, of: Architecture, weights: DecoderWeights) -> None:
        self._of, self._weights = of, weights
        self._frequencies = {
            rotation: torch.tensor(
                rotation.frequencies, dtype=torch.float64, device=weights.embedding.device
            )
            for rotation in set(of.rotations)
        }

    def run(self, cache: PassCache, given: PassTensors) -> torch.Tensor:
        """Return the last layer's output: float32 [users, new, hidden].

        Args:
            cache: The users' keys and values. The new ones are written behind them, and the caller
                keeps them or does not.
            given: The pass.
        """
        of, weights = self._of, self._weights
        turns = {rotation: self._turn(rotation, given.positions) for rotation in self._frequencies}
        masks = {window: self._mask(window, given, cache) for window in set(of.windows)}
        stream = weights.embedding.rows(given.token_ids) * of.embedding_scale
        for number, layer in enumerate(weights.layers):
            turn, mask = turns[of.rotations[number]], masks[of.windows[number]]
            normed = self._norm(stream, layer.before_attention)
            found = self._attend(layer, normed, turn, mask, cache, number)
            stream = stream + self._norm(found, layer.after_attention)
            found = self._mlp(layer, self._norm(stream, layer.before_mlp))
            stream = stream + self._norm(found, layer.after_mlp)
        return stream

    def log_probs(
        self,
        stream: torch.Tensor,
        rows: torch.Tensor,
        tokens: torch.Tensor,
        chunk: int = VOCABULARY_CHUNK,
    ) -> torch.Tensor:
        """Return log-probabilities of tokens: float32 [pairs].

        The normaliser is summed over ``chunk`` tokens of the vocabulary at a time. The wanted
        logits are taken from the very products that the sum is made of.

        Args:
            stream: float32 [wanted, hidden], rows of what `run` returns.
            rows: int64 [pairs], indices into ``stream``.
            tokens: int64 [pairs].
            chunk: Most tokens whose logits are held at once.
        """
        hidden = self._norm(stream, self._weights.final_norm)
        chosen, sums, places = hidden.new_zeros(len(rows)), [], tokens
        for part in self._weights.output.split(chunk):
            logits = _capped(part.product(hidden), self._of.final_cap)
            is_here = (places >= 0) & (places < part.outputs)
            found = logits[rows, places.clamp(0, part.outputs - 1)]
            chosen = torch.where(is_here, found, chosen)
            sums.append(logits.logsumexp(dim=-1))
            places = places - part.outputs
        return chosen - torch.stack(sums).logsumexp(dim=0)[rows]

    def _attend(
        self,
        layer: LayerWeights,
        normed: torch.Tensor,
        turn: _Turn,
        mask: torch.Tensor,
        cache: PassCache,
        number: int,
    ) -> torch.Tensor:
        of = self._of
        users, new, _ = normed.shape
        sizes = [heads * of.head_size for heads in (of.heads, *[of.key_value_heads] * 2)]
        query, key, value = (
            part.view(users, new, -1, of.head_size).transpose(1, 2)
            for part in torch.split(_product(normed, layer.qkv), sizes, dim=-1)
        )
        query = _rotated(self._norm(query, layer.query_norm), turn)
        key = _rotated(self._norm(key, layer.key_norm), turn)
        keys, values = cache.write(number, key, value)
        rows = query.reshape(users, of.key_value_heads, -1, of.head_size)
        # On a GPU, the fused kernels for masks multiply in TF32 parts, whatever torch is told.
        if of.attention_cap is None and not rows.is_cuda:
            found = F.scaled_dot_product_attention(
                rows, keys, values, attn_mask=mask, scale=of.attention_scale
            )
        else:
            scores = _capped(rows @ keys.mT * of.attention_scale, of.attention_cap)
            found = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) @ values
        found = found.reshape(users, of.heads, new, of.head_size).transpose(1, 2)
        return _product(found.flatten(2), layer.attention_output)

    def _mlp(self, layer: LayerWeights, normed: torch.Tensor) -> torch.Tensor:
        gate, up = _product(normed, layer.gate_up).chunk(2, dim=-1)
        if self._of.activation == "silu":
            gate = F.silu(gate)
        else:
            is_exact = self._of.activation == "gelu"
            gate = F.gelu(gate, approximate="none" if is_exact else "tanh")
        return _product(gate * up, layer.down)

    def _norm(self, values: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Return the root-mean-square norm over the last axis; the values if there is none."""
        if weight is None:
            return values
        return F.rms_norm(values, weight.shape, weight, self._of.norm_epsilon)

    def _turn(self, rotation: Rotation, positions: torch.Tensor) -> _Turn:
        """Return the cosines and sines of a pass: float32 [users, 1, new, head_size / 2].

        Angles are in double precision: single precision is 0.004 off at position 100,000.
        """
        angles = positions.double()[:, None, :, None] * self._frequencies[rotation]
        return angles.cos().float(), angles.sin().float()

    def _mask(self, window: int | None, given: PassTensors, cache: PassCache) -> torch.Tensor:
        """Return what each row of an attention product sees: bool [users, 1, rows, past + new].

        Args:
            window: How many positions are seen, the own one included; None for all.
            given: The pass.
            cache: Its users'.
        """
        visible = given.visible
        if window is not None and window < self._of.max_positions:
            distance = given.positions[:, :, None] - cache.key_positions[:, None, :]
            visible = visible & (distance < window)
        return visible[:, None].repeat(1, 1, self._of.heads // self._of.key_value_heads, 1)


def _product(values: torch.Tensor, linear: Linear) -> torch.Tensor:
    return linear.matrix.product(values, linear.bias)


def _capped(values: torch.Tensor, cap: float | None) -> torch.Tensor:
    return values if cap is None else torch.tanh(values / cap) * cap


def _rotated(values: torch.Tensor, turn: _Turn) -> torch.Tensor:
    """Rotate each pair (i, i + half) of a head's numbers: [users, heads, new, head_size]."""
    cosines, sines = turn
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
