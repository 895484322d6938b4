"""A deployment file: a GPU and its load. Every size of an engine follows from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from adprior_build.toml_settings import load_settings
from adprior_runtime.errors import InvalidInputError

COMPUTE_CAPABILITY: Final[dict[str, float]] = {
    "A10": 8.6,
    "A10G": 8.6,
    "A30": 8.0,
    "A100": 8.0,
    "L4": 8.9,
    "L40S": 8.9,
    "H100": 9.0,
    "H200": 9.0,
}
"""The compute capability of each GPU, by its name in ``nvidia-smi``."""

_FP8_FROM: Final = 8.9
_MAX_BEAM_WIDTH: Final = 127
"""Requests of 128 beams hang (TensorRT-LLM #13543, #12071), and this will not be fixed."""

_CHOICES: Final = {"quantisation": ("none", "fp8"), "dtype": ("bfloat16", "float16")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A GPU and its load.

    Attributes:
        gpu: Type of the GPU, one of `COMPUTE_CAPABILITY`.
        memory_gib: Its memory as ``nvidia-smi`` reports it (MiB / 1024), not as it is sold.
        prompt_tokens: The longest prompt.
        beam_width: Beams per request.
        concurrency: Users that the engine processes at once.
        quantisation: Quantisation of the weights: ``none``, or ``fp8`` (calibrated on prompts).
        dtype: Type of the KV cache, and of weights and activations that are not quantised.
        spare_name_tokens: Room for longer names in a later catalogue.
        kv_cache_share: Share of the memory left after loading that becomes KV cache.
        repository_path: Where the serving container mounts the repository.
    """

    gpu: str
    memory_gib: float
    prompt_tokens: int
    beam_width: int
    concurrency: int
    quantisation: str = "none"
    dtype: str = "bfloat16"
    spare_name_tokens: int = 0
    kv_cache_share: float = 0.9
    repository_path: str = "/models"

    def __post_init__(self) -> None:
        """Refuse a deployment for which no engine can be built."""
        for item in fields(self):
            self._check_type(item.name, str(item.type))
        if self.gpu not in COMPUTE_CAPABILITY:
            known = ", ".join(COMPUTE_CAPABILITY)
            raise InvalidInputError(f"deployment: gpu is {self.gpu!r}, expected one of {known}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidInputError(
                    f"deployment: {name} is {getattr(self, name)!r}, "
                    f"expected {' or '.join(choices)}"
                )
        self._check_range("memory_gib", 1, 1024)
        self._check_range("prompt_tokens", 32, 1_000_000)
        self._check_range("beam_width", 2, _MAX_BEAM_WIDTH)
        self._check_range("concurrency", 1, 4096)
        self._check_range("spare_name_tokens", 0, 1024)
        self._check_range("kv_cache_share", 0.05, 0.95)
        if self.quantisation == "fp8" and COMPUTE_CAPABILITY[self.gpu] < _FP8_FROM:
            raise InvalidInputError(
                f"deployment: quantisation is fp8, which {self.gpu} (compute capability "
                f"{COMPUTE_CAPABILITY[self.gpu]}) does not support; expected {_FP8_FROM} or more"
            )
        if not self.repository_path.startswith("/") or not self.repository_path.isprintable():
            raise InvalidInputError(
                f"deployment: repository_path is {self.repository_path!r}, expected a path from /"
            )

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Read a deployment file; refuse unknown and missing keys."""
        return load_settings(path, cls, "a deployment")

    def _check_type(self, name: str, kind: str) -> None:
        value = getattr(self, name)
        fits = {
            "int": type(value) is int,
            "float": type(value) in {int, float},
            "str": isinstance(value, str),
        }[kind]
        if not fits:
            expected = {"int": "a whole number", "float": "a number", "str": "text"}[kind]
            raise InvalidInputError(f"deployment: {name} is {value!r}, expected {expected}")

    def _check_range(self, name: str, smallest: float, largest: float) -> None:
        value = getattr(self, name)
        if not smallest <= value <= largest:
            raise InvalidInputError(
                f"deployment: {name} is {value}, expected {smallest} to {largest}"
            )
