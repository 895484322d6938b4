"""Writes the layers of a decoder: norms, attention over prompt and tree, gated MLP.

Values are matrices [new, hidden]: a pass has one user. Attention heads that share keys and values
are rows of one product, so keys and values are not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adprior_build.onnx_graph.matrices import Matrices
from adprior_build.onnx_graph.model_file import ORT, ModelFile
from adprior_runtime.engines.architecture import Architecture, Rotation

_ANGLES_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PassInputs:
    """The names of a pass's values that every layer reads.

    Attributes:
        positions: int64 [new].
        key_positions: int64 [positions].
        mask: Float [1, 1, new, positions].
        wanted: int64 [wanted], indices of the new tokens whose last output is wanted.
        past: Float [1, key_value_heads, past, head_size], keys and values of each layer in turn.
    """

    positions: str
    key_positions: str
    mask: str
    wanted: str
    past: list[str]


class Decoder:
    """Writes all layers.

    Attributes:
        cache: Names of all keys and values, [1, key_value_heads, positions, head_size], in the
            order of ``PassInputs.past``.
    """

    def __init__(
        self, file: ModelFile, matrices: Matrices, architecture: Architecture, inputs: PassInputs
    ) -> None:
        self._file, self._matrices = file, matrices
        self._of, self._inputs = architecture, inputs
        self._angles = {
            rotation: self._cosines_and_sines(rotation) for rotation in set(architecture.rotations)
        }
        self._masks = {window: self._mask(window) for window in set(architecture.windows)}
        self.cache: list[str] = []

    def run(self, embeddings: str) -> str:
        """Return the last layer's output after the final norm, of wanted tokens: [wanted, hidden].

        The last layer computes keys and values of all tokens, and the rest of wanted ones only: a
        prompt wants one.

        Args:
            embeddings: Float [new, hidden].
        """
        of, total = self._of, embeddings
        normed = self._norm("model.layers.0.input_layernorm", total)
        for layer in range(of.layers):
            prefix = f"model.layers.{layer}"
            is_last = layer == of.layers - 1
            found = self._attention(layer, normed, self._inputs.wanted if is_last else None)
            if is_last:
                total = self._file.node("Gather", total, self._inputs.wanted, axis=0)
            before_mlp = "post_attention_layernorm"
            if of.sandwich:
                found = self._norm(f"{prefix}.post_attention_layernorm", found)
                before_mlp = "pre_feedforward_layernorm"
            normed, total = self._add_and_norm(f"{prefix}.{before_mlp}", total, found)
            found = self._mlp(f"{prefix}.mlp", normed)
            if of.sandwich:
                found = self._norm(f"{prefix}.post_feedforward_layernorm", found)
            after = "model.norm" if is_last else f"model.layers.{layer + 1}.input_layernorm"
            normed, total = self._add_and_norm(after, total, found)
        return normed

    def _attention(self, layer: int, values: str, rows: str | None) -> str:
        """Return the attention's output of some rows, or of all: [rows, hidden]."""
        of, file = self._of, self._file
        prefix = f"model.layers.{layer}.self_attn"
        inner = of.heads * of.head_size
        query, key, value = self._projected(prefix, values, rows)
        cosines, sines, places = self._angles[of.rotations[layer]]
        mask = self._masks[of.windows[layer]]
        key = self._heads(key, of.key_value_heads, f"{prefix}.k_norm", (places, cosines, sines))
        if rows is not None:
            places = file.node("Unsqueeze", rows, file.constant([0]))
            mask = file.node("Gather", mask, rows, axis=2)
        query = self._heads(query, of.heads, f"{prefix}.q_norm", (places, cosines, sines))
        new = (key, self._transposed(value, of.key_value_heads))
        past = self._inputs.past[2 * layer : 2 * layer + 2]
        all_keys, all_values = (
            file.node("Concat", *parts, axis=2) for parts in zip(past, new, strict=True)
        )
        self.cache += [all_keys, all_values]
        shared = of.heads // of.key_value_heads
        shape = file.constant([1, of.key_value_heads, -1, of.head_size])
        query = file.node("Reshape", query, shape)
        scores = file.node(
            "FusedMatMul", query, all_keys, domain=ORT, transB=1, alpha=of.attention_scale
        )
        scores = self._capped(scores, of.attention_cap)
        scores = file.node("Reshape", scores, file.constant([of.key_value_heads, shared, -1, 0]))
        scores = file.node("Add", scores, mask)
        shares = file.node("Softmax", scores, axis=-1)
        shares = file.node("Reshape", shares, file.constant([1, of.key_value_heads, -1, 0]))
        found = file.node("MatMul", shares, all_values)
        found = file.node("Reshape", found, file.constant([1, of.heads, -1, of.head_size]))
        found = file.node("Transpose", found, perm=[0, 2, 1, 3])
        found = file.node("Reshape", found, file.constant([-1, inner]))
        return self._matrices.product(found, [f"{prefix}.o_proj"], [of.hidden], inner)

    def _projected(self, prefix: str, values: str, rows: str | None) -> list[str]:
        """Return queries of some rows, or of all; and keys and values of all: [rows, n] each."""
        of, file = self._of, self._file
        sizes = [of.heads * of.head_size, *[of.key_value_heads * of.head_size] * 2]
        names = [f"{prefix}.{name}_proj" for name in "qkv"]
        if rows is None:
            joined = self._matrices.product(values, names, sizes, of.hidden)
            return file.nodes("Split", joined, file.constant(sizes), axis=1, outputs=3)
        some = file.node("Gather", values, rows, axis=0)
        query = self._matrices.product(some, names[:1], sizes[:1], of.hidden)
        joined = self._matrices.product(values, names[1:], sizes[1:], of.hidden)
        return [query, *file.nodes("Split", joined, axis=1, num_outputs=2, outputs=2)]

    def _heads(self, values: str, heads: int, norm: str, angles: tuple[str, str, str]) -> str:
        """Return queries or keys, normed if the model does so, and rotated: [1, heads, rows, n].

        Args:
            values: [rows, heads * n].
            heads: How many.
            norm: The norm's name.
            angles: The rows' places in cosines and sines, [1, rows]; cosines and sines.
        """
        values = self._transposed(values, heads)
        if self._matrices.has(f"{norm}.weight"):
            values = self._norm(norm, values, self._of.head_size)
        return self._file.node("RotaryEmbedding", values, *angles, domain=ORT)

    def _transposed(self, values: str, heads: int) -> str:
        shape = self._file.constant([1, -1, heads, self._of.head_size])
        values = self._file.node("Reshape", values, shape)
        return self._file.node("Transpose", values, perm=[0, 2, 1, 3])

    def _mlp(self, prefix: str, values: str) -> str:
        of, file = self._of, self._file
        names = [f"{prefix}.gate_proj", f"{prefix}.up_proj"]
        joined = self._matrices.product(values, names, [of.intermediate] * 2, of.hidden)
        gate, up = file.nodes("Split", joined, axis=1, num_outputs=2, outputs=2)
        if of.activation == "silu":
            gate = file.node("QuickGelu", gate, domain=ORT, alpha=1.0)
        elif of.activation == "gelu":
            gate = file.node("Gelu", gate)
        else:
            gate = file.node("Gelu", gate, approximate="tanh")
        product = file.node("Mul", gate, up)
        return self._matrices.product(
            product, [f"{prefix}.down_proj"], [of.hidden], of.intermediate
        )

    def _norm(self, name: str, values: str, size: int | None = None) -> str:
        weight = self._norm_weight(name, size or self._of.hidden)
        return self._file.node(
            "SimplifiedLayerNormalization",
            values,
            weight,
            axis=-1,
            epsilon=self._of.norm_epsilon,
            stash_type=1,
        )

    def _add_and_norm(self, name: str, total: str, values: str) -> tuple[str, str]:
        """Return the norm of the sum of two values, and the sum."""
        weight = self._norm_weight(name, self._of.hidden)
        normed, _, _, added = self._file.nodes(
            "SkipSimplifiedLayerNormalization",
            values,
            total,
            weight,
            domain=ORT,
            outputs=4,
            unused=(1, 2),
            epsilon=self._of.norm_epsilon,
        )
        return normed, added

    def _norm_weight(self, name: str, size: int) -> str:
        return self._matrices.vector([f"{name}.weight"], size, self._of.norm_offset)

    def _capped(self, values: str, cap: float | None) -> str:
        return soft_capped(self._file, values, cap)

    def _mask(self, window: int | None) -> str:
        """Return the mask of layers that see ``window`` positions, their own included."""
        file, inputs = self._file, self._inputs
        if window is None or window >= self._of.max_positions:
            return inputs.mask
        rows = file.node("Unsqueeze", inputs.positions, file.constant([1]))
        distance = file.node("Sub", rows, inputs.key_positions)
        is_near = file.node("Less", distance, file.constant(window))
        lowest = file.constant(np.finfo(np.float32).min, np.float32)
        return file.node("Where", is_near, inputs.mask, lowest)

    def _cosines_and_sines(self, rotation: Rotation) -> tuple[str, str, str]:
        """Return cosines and sines of the pass's angles, [new, head_size / 2], and their places.

        Position p is ``256 a + b``. The tables hold the angles of all 256 a and of all b, in single
        precision from double; the sum's cosine and sine follow from those.
        """
        file, of = self._file, self._of
        step = file.constant(_ANGLES_STEP)
        coarse = file.node("Div", self._inputs.positions, step)
        fine = file.node("Mod", self._inputs.positions, step)
        far = np.arange(0, of.max_positions + _ANGLES_STEP, _ANGLES_STEP)
        parts = [
            file.node("Gather", file.constant(function(rotation.angles(table)), np.float32), places)
            for table, places in ((far, coarse), (np.arange(_ANGLES_STEP), fine))
            for function in (np.cos, np.sin)
        ]
        cos_far, sin_far, cos_near, sin_near = parts

        def product(first: str, second: str) -> str:
            return file.node("Mul", first, second)

        cosines = file.node("Sub", product(cos_far, cos_near), product(sin_far, sin_near))
        sines = file.node("Add", product(sin_far, cos_near), product(cos_far, sin_near))
        count = file.node("Size", self._inputs.positions)
        places = file.node("Range", file.constant(0), count, file.constant(1))
        return cosines, sines, file.node("Unsqueeze", places, file.constant([0]))


def soft_capped(file: ModelFile, values: str, cap: float | None) -> str:
    """Return ``cap tanh(values / cap)``, or the values without a cap."""
    if cap is None:
        return values
    scale = file.constant(cap, np.float32)
    small = file.node("Tanh", file.node("Div", values, scale))
    return file.node("Mul", small, scale)
