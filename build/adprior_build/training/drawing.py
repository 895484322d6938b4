"""Draws what a training learns from: windows of histories."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.data.event_log import UserHistory
from adprior_build.training.interest_examples import InterestExamples
from adprior_build.training.windows import EpochWindows, Window, WindowSource
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.renderer import PromptRenderer


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The inputs of a training.

    Attributes:
        catalogue: The advertisers.
        interests: The interests that are targets too; None without.
        read: All users with all events.
        training: The training users, with their events before the cut.
        validation: The users that choose the epoch, with their events before the cut.
    """

    catalogue: Catalogue
    interests: Catalogue | None = None
    read: Sequence[UserHistory]
    training: Sequence[UserHistory]
    validation: Sequence[UserHistory]


def draw_windows(
    args: argparse.Namespace,
    data: TrainingData,
    renderer: PromptRenderer,
    trie: Trie,
    interests: InterestExamples | None = None,
) -> tuple[EpochWindows, list[Window]]:
    """Return the source of training windows, and the validation windows.

    Args:
        args: The options of `adprior train`.
        data: The users.
        renderer: Renders the prompts.
        trie: The catalogue's names.
        interests: Makes the interests at the windows' ends; None without.

    Raises:
        InvalidInputError: There is nothing to train on.
    """
    training = WindowSource(data.training, renderer, trie, args.seed, interests)
    first = training.epoch(0)
    if not any(window.names for window in first):
        raise InvalidInputError(
            f"{args.events}: nothing to train on: of {sum(len(u.events) for u in data.training)} "
            "events before the cut, no event names an advertiser of the catalogue and has what "
            "the template's piece with {advertiser} shows"
        )
    if interests and not any(window.interests for window in first):
        raise InvalidInputError(
            f"{args.interests}: no interest to learn: no training event before the cut has one of "
            "these as its category (in words: PET_FOOD is pet food)"
        )
    fixed = args.upper_layers is not None  # the lower layers' output is kept for the first ones

    def epoch_windows(number: int) -> list[Window]:
        return first if fixed or number == 0 else training.epoch(number)

    checks = WindowSource(data.validation, renderer, trie, args.seed, interests)
    return epoch_windows, checks.epoch(0)
