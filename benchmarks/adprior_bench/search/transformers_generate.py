"""Beam search by ``transformers.generate``, constrained by a trie: the search's peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adprior_runtime.catalogue.trie import Trie


def generate_names(
    model: Any, prompt_ids: Sequence[int], trie: Trie, width: int, end_id: int
) -> list[tuple[float, list[int]]]:
    """Return at most ``width`` names with their log-probabilities, the most probable first.

    The scores are those of ``generate``: a log-softmax over the whole vocabulary, then masked by
    the trie. ``length_penalty`` 0 keeps the sum over tokens.
    """
    import torch  # noqa: PLC0415  heavy

    prompt = torch.tensor([list(prompt_ids)])
    tokens_below: dict[tuple[int, ...], list[int]] = {}

    def allowed(_: int, sequence: torch.Tensor) -> list[int]:
        path = tuple(sequence[len(prompt_ids) :].tolist())
        if path not in tokens_below:
            node = _walk(trie, path)
            tokens_below[path] = trie.children(node)[0].tolist() if node >= 0 else []
        return tokens_below[path] or [end_id]

    with torch.no_grad():
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=trie.depth,
            prefix_allowed_tokens_fn=allowed,
            length_penalty=0.0,
            do_sample=False,
            early_stopping=False,
            return_dict_in_generate=True,
            output_scores=True,
            eos_token_id=end_id,
            pad_token_id=end_id,
        )
    names = []
    sequences = output.sequences[:, len(prompt_ids) :].tolist()
    for sequence, score in zip(sequences, output.sequences_scores.tolist(), strict=True):
        path = sequence[: sequence.index(end_id) + 1] if end_id in sequence else sequence
        if trie.lookup(path) >= 0:
            names.append((score, path))
    return sorted(names, key=lambda item: -item[0])


def _walk(trie: Trie, path: tuple[int, ...]) -> int:
    node = 0
    for token in path:
        tokens, nodes = trie.children(node)
        place = int(tokens.searchsorted(token))
        if place == len(tokens) or tokens[place] != token:
            return -1
        node = int(nodes[place])
    return node
