"""The whole forecast in one process: the steps that Triton's ensembles chain, chained here.

For evaluation, tests and bulk runs. Serving goes through Triton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.bundle import Bundle
from adprior_runtime.forecast.decode_step import DecodedForecast, DecodeStep
from adprior_runtime.forecast.interests import Interests
from adprior_runtime.forecast.search_step import SearchedUser, SearchStep
from adprior_runtime.forecast.tokenize_step import TokenizeStep
from adprior_runtime.head.features import CandidatePriors, candidate_priors
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.search.candidates import CandidateScores

_NOBODY: Final = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueForecast:
    """What a search knows of every advertiser of the catalogue.

    Attributes:
        log_probs: float64 [advertisers], by row; an upper bound where not resolved.
        resolved: bool [advertisers], whether the log-probability is the model's own.
        unresolved_mass: An upper bound on the probability of all others together.
        exact: Whether the most probable advertisers are proved.
        new_exact: Whether the most probable ones that are not known are proved.
        interests: The most probable interests; none if none were asked for.
    """

    log_probs: npt.NDArray[np.float64]
    resolved: npt.NDArray[np.bool_]
    unresolved_mass: float
    exact: bool
    new_exact: bool
    interests: Interests


class Forecaster:
    """Forecasts advertisers with one bundle, without a server.

    Args:
        directory: The bundle.
        threads: Threads of one forward pass; 0 takes the processors this process may use.
        files: The files to check and use, if the directory lacks some of a bundle's files.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        threads: int = 0,
        files: Iterable[str] | None = None,
        device: str = "cpu",
    ) -> None:
        self.bundle = Bundle.open(directory, files)
        self._tokenize = TokenizeStep(self.bundle)
        self._search = SearchStep(self.bundle, threads=threads, device=device)
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

    def forecast_interests(
        self, prompt_ids: Sequence[int], top_k: int | None, interest_top_k: int
    ) -> tuple[DecodedForecast, Interests]:
        """Forecast from a prompt, with interests if the bundle has them.

        Args:
            prompt_ids: From `prompt_ids`.
            top_k: Number of advertisers; None for the bundle's number.
            interest_top_k: Number of interests.
        """
        searched, forecast = self._run(prompt_ids, top_k)
        return forecast, self._find_interests(searched, interest_top_k)

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

    def forecast_catalogue(
        self,
        prompt_ids: Sequence[int],
        *,
        known_ids: npt.NDArray[np.int64],
        new_k: int,
        excluded_ids: npt.NDArray[np.int64],
        interest_top_k: int = 0,
    ) -> CatalogueForecast:
        """Forecast from a prompt, and bound every advertiser of the catalogue at no more cost.

        The prompt is read once. The search finds the bundle's number of advertisers, and goes on
        until it has found enough that are not known.

        Args:
            prompt_ids: A prompt that `prompt_ids` returned.
            known_ids: int64, advertisers to look beyond.
            new_k: How many other advertisers to find.
            excluded_ids: int64, advertisers that the search leaves out.
            interest_top_k: How many interests to find too.
        """
        searched, forecast = self._run(prompt_ids, None, excluded_ids)
        further = searched.look_further(new_k, known_ids)
        scores = searched.score_catalogue()
        return CatalogueForecast(
            log_probs=scores.log_probs,
            resolved=scores.exact,
            unresolved_mass=float(np.exp(further.frontier_log_mass)),
            exact=forecast.exact,
            new_exact=further.exact,
            interests=self._find_interests(searched, interest_top_k),
        )

    def _find_interests(self, searched: SearchedUser, top_k: int) -> Interests:
        """Find interests after the same prompt; the advertisers' search cannot go on then."""
        catalogue = self._search.interests
        if catalogue is None or top_k == 0:
            return Interests.none()
        return catalogue.decode(catalogue.search(searched.search, top_k).beams, top_k)

    def _run(
        self,
        prompt_ids: Sequence[int],
        top_k: int | None,
        excluded_ids: npt.NDArray[np.int64] = _NOBODY,
    ) -> tuple[SearchedUser, DecodedForecast]:
        top_k = self.bundle.manifest.forecast_k if top_k is None else top_k
        searched = self._search.run(prompt_ids, top_k=top_k, excluded_ids=excluded_ids)
        decoded = self._decode.run(searched.beams, top_k=top_k, excluded_ids=excluded_ids)
        return searched, decoded

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
