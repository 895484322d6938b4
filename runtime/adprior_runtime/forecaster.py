"""The whole forecast in one process: prompt, search, decoding; what the ensemble does step by step.

For evaluation and tests. Serving goes through Triton.
"""

from __future__ import annotations

from pathlib import Path

from adprior_runtime.bundle import (
    ADVERTISERS_DIRECTORY,
    ONNX_MODEL_FILE,
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue import Advertisers
from adprior_runtime.context import UserContext
from adprior_runtime.decoder import AdvertiserDecoder, DecodedForecast, beams_to_paths
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.prompt import PromptRenderer
from adprior_runtime.search import SearchSettings, TrieSearch
from adprior_runtime.trie import Trie

__all__ = ["Forecaster"]


class Forecaster:
    """Forecasts advertisers with one bundle, without a server."""

    def __init__(self, directory: Path, *, threads: int = 0) -> None:
        self.bundle = Bundle.open(directory)
        self.advertisers = Advertisers.load(self.bundle.path(ADVERTISERS_DIRECTORY))
        self.renderer = PromptRenderer.load(
            self.bundle.path(PROMPT_FILE), self.bundle.path(TOKENIZER_FILE)
        )
        self._trie = Trie.load(self.bundle.path(TRIE_DIRECTORY))
        self._engine = OnnxEngine(
            self.bundle.path(ONNX_MODEL_FILE),
            threads=threads,
            head_ids=self.bundle.manifest.prompt_head_ids,
        )
        self._settings = SearchSettings.of(self.bundle.manifest)
        self._decoder = AdvertiserDecoder(self._trie, self.advertisers)

    def forecast(self, context: UserContext, top_k: int | None = None) -> DecodedForecast:
        """Forecast one user's ``top_k`` advertisers (the bundle's number by default)."""
        top_k = self.bundle.forecast_k if top_k is None else top_k
        settings = self._settings.for_top_k(top_k)
        prompt = self.renderer.render(context).token_ids
        result = TrieSearch(self._engine, self._trie, prompt, settings).run(top_k)
        tokens, lengths = self._trie.paths(result.leaves)
        return self._decoder.decode(
            beams_to_paths(tokens, lengths),
            result.log_probs,
            top_k=top_k,
            frontier_log_probs=result.frontier_log_probs,
            frontier_log_mass=result.frontier_log_mass,
        )
