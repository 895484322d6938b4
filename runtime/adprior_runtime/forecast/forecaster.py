"""The whole forecast in one process: the steps that Triton's ensembles chain, chained here.

For evaluation, tests and bulk runs. Serving goes through Triton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adprior_runtime.bundle import Bundle
from adprior_runtime.forecast.decode_step import DecodedForecast, DecodeStep
from adprior_runtime.forecast.search_step import SearchedUser, SearchStep
from adprior_runtime.forecast.tokenize_step import TokenizeStep
from adprior_runtime.head.features import CandidatePriors, candidate_priors
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.search.candidates import CandidateScores


class Forecaster:
    """Forecasts advertisers with one bundle, without a server.

    Args:
        directory: The bundle.
        threads: Threads of one forward pass; 0 takes the processors this process may use.
        files: The files to check and use, if the directory lacks some of a bundle's files.
    """

    def __init__(
        self, directory: Path, *, threads: int = 0, files: Iterable[str] | None = None
    ) -> None:
        self.bundle = Bundle.open(directory, files)
        self._tokenize = TokenizeStep(self.bundle)
        self._search = SearchStep(self.bundle, threads=threads)
        self._decode = DecodeStep.load(self.bundle)
        self.renderer = self._tokenize.renderer
        self.advertisers = self._decode.advertisers

    def prompt_ids(self, user: UserContext | bytes) -> list[int]:
        """Return the tokens of a user's prompt; the user is a context, or its JSON."""
        return self._tokenize.run(user).prompt.token_ids

    def forecast(self, user: UserContext | bytes, top_k: int | None = None) -> DecodedForecast:
        """Forecast one user's ``top_k`` advertisers (the bundle's number by default)."""
        return self.forecast_prompt(self.prompt_ids(user), top_k)

    def forecast_prompt(self, prompt_ids: Sequence[int], top_k: int | None) -> DecodedForecast:
        """Forecast from a prompt that `prompt_ids` returned."""
        return self._run(prompt_ids, top_k)[1]

    def rank(
        self, user: UserContext | bytes, candidate_ids: npt.NDArray[np.int64]
    ) -> tuple[DecodedForecast, CandidatePriors]:
        """Forecast one user and compute the candidates' priors, as a live ranking does.

        Args:
            user: A context, or its JSON.
            candidate_ids: int64 [candidates]; an id may be repeated.

        Returns:
            The forecast, with the bundle's number of advertisers, and the candidates' priors. A
            candidate's log-probability is exact unless the bundle's token budget is spent.
        """
        searched, forecast = self._run(self.prompt_ids(user), None)
        return forecast, self._priors(forecast, candidate_ids, searched.score(candidate_ids))

    def look_up(
        self, forecast: DecodedForecast, candidate_ids: npt.NDArray[np.int64]
    ) -> CandidatePriors:
        """Compute the candidates' priors from a forecast alone, as ranking with a stored one does.

        Args:
            forecast: A forecast with the bundle's number of advertisers.
            candidate_ids: int64 [candidates]. If the forecast does not show a candidate, its
                probability is at most the missing mass.
        """
        return self._priors(forecast, candidate_ids, None)

    def bounds(self, user: UserContext | bytes) -> tuple[DecodedForecast, npt.NDArray[np.float64]]:
        """Forecast one user and bound every advertiser of the catalogue, at no more cost.

        Returns:
            The forecast, with the bundle's number of advertisers, and for each row of the catalogue
            its log-probability, or an upper bound if the search has not resolved it: float64
            [advertisers].
        """
        searched, forecast = self._run(self.prompt_ids(user), None)
        return forecast, searched.bound_catalogue()

    def _run(
        self, prompt_ids: Sequence[int], top_k: int | None
    ) -> tuple[SearchedUser, DecodedForecast]:
        top_k = self.bundle.manifest.forecast_k if top_k is None else top_k
        searched = self._search.run(prompt_ids, top_k=top_k)
        return searched, self._decode.run(searched.beams, top_k=top_k)

    def _priors(
        self,
        forecast: DecodedForecast,
        candidate_ids: npt.NDArray[np.int64],
        scores: CandidateScores | None,
    ) -> CandidatePriors:
        return candidate_priors(
            forecast,
            candidate_ids,
            self.advertisers,
            self.bundle.manifest.forecast_k,
            scored_log_probs=None if scores is None else scores.log_probs.astype(np.float32),
            scored_exact=None if scores is None else scores.exact,
        )
