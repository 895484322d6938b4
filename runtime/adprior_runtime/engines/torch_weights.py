"""The weights of `adprior_runtime.engines.torch_engine`, read from a bundle's safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError, safe_open

from adprior_runtime.engines.architecture import (
    EMBEDDING,
    FINAL_NORM,
    OUTPUT,
    Architecture,
    differing_weight,
    weight_shapes,
)
from adprior_runtime.engines.registry import SINGLE_PRECISION
from adprior_runtime.engines.torch_products import Matrix, hold_matrix
from adprior_runtime.errors import ArtefactError

STORED_TYPES: Final = (torch.float32, torch.bfloat16)

_open: Any = safe_open  # the package declares it without types


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix, or several ones joined, and their biases.

    Attributes:
        matrix: [outputs, inputs].
        bias: float32 [outputs], or None.
    """

    matrix: Matrix
    bias: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer's weights. The architecture's offset is already added to those of the norms.

    Attributes:
        qkv: Queries, keys and values in one product.
        attention_output: The product after the attention.
        gate_up: The MLP's gate and its other factor in one product.
        down: The product after the MLP.
        before_attention, before_mlp: Norms, float32 [hidden].
        after_attention, after_mlp: Norms, float32 [hidden], or None.
        query_norm, key_norm: Norms, float32 [head_size], or None.
    """

    qkv: Linear
    attention_output: Linear
    gate_up: Linear
    down: Linear
    before_attention: torch.Tensor
    before_mlp: torch.Tensor
    after_attention: torch.Tensor | None
    after_mlp: torch.Tensor | None
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderWeights:
    """A language model's weights. Vectors are in single precision, matrices as they multiply.

    Attributes:
        embedding: [vocabulary, hidden].
        output: [vocabulary, hidden]; the embedding itself if both are tied.
        final_norm: float32 [hidden].
        layers: The layers', first to last.
    """

    embedding: Matrix
    output: Matrix
    final_norm: torch.Tensor
    layers: Sequence[LayerWeights]

    @classmethod
    def load(
        cls,
        path: Path,
        of: Architecture,
        device: torch.device,
        products: str = SINGLE_PRECISION,
    ) -> Self:
        """Read a file's weights onto a device, one at a time.

        Args:
            path: The file.
            of: The architecture.
            device: The device.
            products: How matrices are multiplied, see `hold_matrix`.

        Raises:
            ArtefactError: It is no such file, or lacks a weight, or has one too many, or one of
                another shape or type.
        """
        try:
            with _open(path, framework="pt", device=str(device)) as file:
                _check_names(path, of, file.keys())
                reader = _Reader(path, of, file, products)
                embedding = reader.matrix(EMBEDDING)
                return cls(
                    embedding=embedding,
                    output=embedding if of.tied else reader.matrix(OUTPUT),
                    final_norm=reader.norm(FINAL_NORM),
                    layers=[reader.layer(number) for number in range(of.layers)],
                )
        except (OSError, SafetensorError) as error:
            raise ArtefactError(f"{path}: not a language model's weights: {error}") from error


def _check_names(path: Path, of: Architecture, given: Sequence[str]) -> None:
    if difference := differing_weight(of, given):
        raise ArtefactError(f"{path}: {difference}")


class _Reader:
    """Reads weights of one file."""

    def __init__(self, path: Path, of: Architecture, file: Any, products: str) -> None:
        self._path, self._of, self._file, self._products = path, of, file, products
        self._names = frozenset(file.keys())
        self._shapes = weight_shapes(of, self._names)

    def matrix(self, *names: str) -> Matrix:
        return hold_matrix(torch.cat([self._read(name) for name in names]), self._products)

    def vector(self, *names: str) -> torch.Tensor:
        return torch.cat([self._read(name) for name in names]).float()

    def _read(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self._file.get_tensor(name)
        if tuple(found.shape) != self._shapes[name] or found.dtype not in STORED_TYPES:
            raise ArtefactError(
                f"{self._path}: {name} is {found.dtype} {list(found.shape)}, expected one of "
                f"{', '.join(map(str, STORED_TYPES))} and {list(self._shapes[name])}"
            )
        return found

    def norm(self, name: str) -> torch.Tensor:
        return self.vector(name) + self._of.norm_offset

    def layer(self, number: int) -> LayerWeights:
        prefix = f"model.layers.{number}"

        def norm(name: str) -> torch.Tensor:
            return self.norm(f"{prefix}.{name}.weight")

        def optional_norm(name: str) -> torch.Tensor | None:
            return norm(name) if f"{prefix}.{name}.weight" in self._names else None

        def linear(room: str, *names: str) -> Linear:
            return self._joined([f"{prefix}.{room}.{name}_proj" for name in names])

        # A family with four norms calls the one before the MLP otherwise.
        after_attention = norm("post_attention_layernorm") if self._of.sandwich else None
        before_mlp = "pre_feedforward" if self._of.sandwich else "post_attention"
        return LayerWeights(
            qkv=linear("self_attn", "q", "k", "v"),
            attention_output=linear("self_attn", "o"),
            gate_up=linear("mlp", "gate", "up"),
            down=linear("mlp", "down"),
            before_attention=norm("input_layernorm"),
            before_mlp=norm(f"{before_mlp}_layernorm"),
            after_attention=after_attention,
            after_mlp=norm("post_feedforward_layernorm") if self._of.sandwich else None,
            query_norm=optional_norm("self_attn.q_norm"),
            key_norm=optional_norm("self_attn.k_norm"),
        )

    def _joined(self, names: Sequence[str]) -> Linear:
        matrix = self.matrix(*(f"{name}.weight" for name in names))
        if f"{names[0]}.bias" not in self._names:
            return Linear(matrix, None)
        return Linear(matrix, self.vector(*(f"{name}.bias" for name in names)))
