"""The whole forecast in one process: prompt, search, decoding; what the ensemble does step by step.

For evaluation, tests and bulk runs. Serving goes through Triton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.bundle import (
    ADVERTISERS_DIRECTORY,
    ONNX_MODEL_FILE,
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.forecast.beams import beams_to_paths
from adprior_runtime.forecast.decoder import AdvertiserDecoder, DecodedForecast
from adprior_runtime.head.features import CandidatePriors, candidate_priors
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.search.rounding import require_error
from adprior_runtime.search.search import SearchSettings, TrieSearch

_BOUNDED_ROWS: Final = 16_384


class Forecaster:
    """Forecasts advertisers with one bundle, without a server.

    Args:
        directory: The bundle.
        threads: Of one forward pass; 0 takes the processors this process may use.
        files: Those to check and use, where the directory does not hold a bundle's every file.
    """

    def __init__(
        self, directory: Path, *, threads: int = 0, files: Iterable[str] | None = None
    ) -> None:
        self.bundle = Bundle.open(directory, files)
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
        require_error(self.bundle.manifest, is_half=self._engine.is_half)
        self._settings = SearchSettings.of(self.bundle.manifest)
        self._decoder = AdvertiserDecoder(
            self._trie, self.advertisers, margin_nats=self._settings.margin_nats
        )

    def forecast(self, context: UserContext, top_k: int | None = None) -> DecodedForecast:
        """Forecast one user's ``top_k`` advertisers (the bundle's number by default)."""
        return self.forecast_prompt(self.prompt_ids(context), top_k)

    def prompt_ids(self, context: UserContext) -> list[int]:
        """Return the prompt that a user becomes."""
        return self.renderer.render(context).token_ids

    def forecast_prompt(self, prompt_ids: Sequence[int], top_k: int | None) -> DecodedForecast:
        """Forecast as `forecast` does, from a prompt of `prompt_ids`."""
        return self._search(prompt_ids, top_k)[1]

    def rank(
        self, context: UserContext, candidate_ids: npt.NDArray[np.int64]
    ) -> tuple[DecodedForecast, CandidatePriors]:
        """Forecast one user and say what that tells of candidates, as a live ranking does.

        Args:
            context: The user.
            candidate_ids: int64 [candidates]; the same one may come several times.

        Returns:
            The bundle's number of advertisers; and the candidates' own log-probabilities, exact as
            far as the bundle's token budget goes, with the head's features.
        """
        search, forecast = self._search(self.prompt_ids(context), None)
        scores = search.score_ids(self.advertisers, candidate_ids)
        return forecast, self._priors(
            forecast,
            candidate_ids,
            scored_log_probs=scores.log_probs.astype(np.float32),
            scored_exact=scores.exact,
        )

    def look_up(
        self, forecast: DecodedForecast, candidate_ids: npt.NDArray[np.int64]
    ) -> CandidatePriors:
        """Say what a forecast tells of candidates by itself, as ranking with one at hand does.

        Args:
            forecast: Of the bundle's number of advertisers.
            candidate_ids: int64 [candidates]; those it does not show have at most its missing mass.
        """
        return self._priors(forecast, candidate_ids)

    def _priors(
        self, forecast: DecodedForecast, candidate_ids: npt.NDArray[np.int64], **scores: Any
    ) -> CandidatePriors:
        return candidate_priors(
            forecast_ids=forecast.advertiser_ids,
            forecast_log_probs=forecast.log_probs,
            missing_mass=forecast.missing_mass,
            forecast_exact=forecast.exact,
            forecast_k=self.bundle.forecast_k,
            candidate_ids=candidate_ids,
            advertisers=self.advertisers,
            **scores,
        )

    def bounds(self, context: UserContext) -> tuple[DecodedForecast, npt.NDArray[np.float64]]:
        """Forecast one user and bound every advertiser of the catalogue, at no more cost.

        Returns:
            The bundle's number of advertisers; and for each row of the catalogue the
            log-probability where the search has resolved it, else an upper bound: that of the
            prefixes it stopped at. float64 [advertisers].
        """
        search, forecast = self._search(self.prompt_ids(context), None)
        count = len(self.advertisers.ids)
        # In parts: names are looked at as a matrix, as wide as the longest of them.
        parts = [
            search.score(np.arange(start, min(start + _BOUNDED_ROWS, count)), token_budget=0)
            for start in range(0, count, _BOUNDED_ROWS)
        ]
        return forecast, np.concatenate([part.log_probs for part in parts])

    def _search(
        self, prompt_ids: Sequence[int], top_k: int | None
    ) -> tuple[TrieSearch, DecodedForecast]:
        top_k = self.bundle.forecast_k if top_k is None else top_k
        settings = self._settings.for_top_k(top_k)
        search = TrieSearch(self._engine, self._trie, prompt_ids, settings)
        result = search.run(top_k)
        tokens, lengths = self._trie.paths(result.leaves)
        return search, self._decoder.decode(
            beams_to_paths(tokens, lengths),
            result.log_probs,
            top_k=top_k,
            frontier_log_probs=result.frontier_log_probs,
            frontier_log_mass=result.frontier_log_mass,
        )
