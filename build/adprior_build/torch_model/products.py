"""The option ``adprior build --products``: how the torch engine multiplies matrices."""

from __future__ import annotations

import argparse

from adprior_runtime.contract import Target
from adprior_runtime.engines.registry import BFLOAT16_PARTS, SINGLE_PRECISION, TORCH


def add_products(parser: argparse.ArgumentParser) -> None:
    """Declare the option."""
    parser.add_argument(
        "--products",
        choices=TORCH.products,
        default=SINGLE_PRECISION,
        help=f"with --checkpoint and --engine {TORCH.name}: how matrices are multiplied: "
        f"{SINGLE_PRECISION}, in single precision; {BFLOAT16_PARTS}, for GPUs: each factor in "
        "parts of bfloat16, best with --precision bf16 (docs/search.md) (default: %(default)s)",
    )


def products_in_words(products: str, device: str) -> str | None:
    """Return a line for people about products in parts; None for others.

    Args:
        products: The option.
        device: Where the engine was compared with the checkpoint.
    """
    if products != BFLOAT16_PARTS:
        return None
    line = f"products in parts of bfloat16, checked on {device}"
    if device == Target.CUDA:
        return line
    return f"{line}: to serve them on a GPU, build there with --device {Target.CUDA}"
