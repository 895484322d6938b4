"""The plain search that the present one is measured against: a pass a depth, the cache copied.

Kept as it was: a beam search in Python lists over an engine that joins its cache after every pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.trie import Trie

__all__ = ["plain_beam_search"]


def plain_beam_search(
    engine: OnnxEngine, prompt_ids: Sequence[int], trie: Trie, width: int
) -> list[tuple[float, list[int]]]:
    """Return every complete name met and its log-probability, the most probable first."""
    state, log_probs = engine.prefill(prompt_ids)
    level: list[tuple[int, float, list[int], int]] = [(0, 0.0, [], ROOT)]
    rows = log_probs[None]
    found: list[tuple[float, list[int]]] = []
    while level:
        children: list[tuple[int, float, list[int], int]] = []
        for (node, score, path, number), row in zip(level, rows, strict=True):
            tokens, nodes = trie.children(node)
            scores: npt.NDArray[np.float32] = score + row[tokens]
            for token, child, total in zip(tokens.tolist(), nodes.tolist(), scores, strict=True):
                if trie.leaf_advertiser[child] >= 0:
                    found.append((float(total), [*path, token]))
                else:
                    children.append((child, float(total), [*path, token], number))
        children.sort(key=lambda child: -child[1])
        kept = children[:width]
        if not kept:
            break
        first = len(state.depths)
        rows = engine.extend(
            state, [path[-1] for _, _, path, _ in kept], [number for _, _, _, number in kept]
        )
        level = [
            (node, score, path, first + index) for index, (node, score, path, _) in enumerate(kept)
        ]
    return sorted(found, key=lambda item: -item[0])
