"""Many users' searches at once: those that wait for a forward pass get one together.

A search is plain code: it asks its engine for a pass and goes on with the answer. In this loop each
search runs in a greenlet, and asking pauses it. When all searches wait, the loop runs one pass for
those whose passes are about as long, and continues them. New searches join between passes, and an
answer is given as soon as its search ends::

    search A   ● prefill        ● extend   ● extend ─▶ answer
    search B   ● prefill        ● extend   ● extend   ● extend ─▶ answer
    search C        (admitted)  ● prefill             ● extend ...
    model      AB               AB  C      AB         BC

While the device computes one pass, the host goes on with the searches of the pass before it. A
search computes the same as alone, but for the rounding of the products, which the certificate's
margin allows for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import greenlet

from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.joined_pass import power_of_two
from adprior_runtime.engines.packed_tree import PASS_CELLS, UserPass
from adprior_runtime.engines.prompt_pass import PromptAnswer, PromptPass
from adprior_runtime.errors import DeviceFullError

JOINED_TOKENS: Final = 4096
"""Most tokens of a joined pass, padding included: with their logits for a part of the vocabulary
(`adprior_runtime.engines.base.VOCABULARY_CHUNK`), at most 512 MiB."""

JOINED_CELLS: Final = 4 * PASS_CELLS
"""Limit on a joined pass's masks. Each attention head computes as many numbers, 32 MiB."""

_HALVED: Final = 16
"""So many waiting searches are split in two passes: the host is busy with one half while the device
computes the other."""

MOST_SEARCHES: Final = 64
"""Searches at once."""

_log = logging.getLogger("adprior")


class JoinablePasses(Protocol):
    """Runs forward passes of a language model for many users."""

    def empty_cache(self) -> Any:
        """See `adprior_runtime.engines.packed_tree.Passes.empty_cache`."""
        ...

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[Any]]:
        """Start one forward pass for different users.

        Args:
            parts: Each user's, one or more, all of one kind.

        Returns:
            A function that waits for the pass, and returns what
            `adprior_runtime.engines.packed_tree.Passes.run` returns for each user, or
            `adprior_runtime.engines.prompt_pass.PromptPasses.read_prompt`. Passes are waited for
            in the order of their starts.

        Raises:
            DeviceFullError: The pass needs too much memory; it has changed nothing.
        """
        ...


class SharedPasses:
    """Passes that wait for others in a `PassLoop`; outside of one, each runs alone.

    Args:
        passes: The language model's.
    """

    def __init__(self, passes: JoinablePasses) -> None:
        self._passes = passes

    def empty_cache(self) -> Any:
        """See `Passes.empty_cache`."""
        return self._passes.empty_cache()

    def run(self, part: UserPass) -> LogProbs:
        """See `Passes.run`."""
        answer: LogProbs = self._answer(part)
        return answer

    def read_prompt(self, part: PromptPass) -> PromptAnswer:
        """See `PromptPasses.read_prompt`."""
        answer: PromptAnswer = self._answer(part)
        return answer

    def _answer(self, part: UserPass) -> Any:
        search = greenlet.getcurrent()
        if not isinstance(search, _Search):
            return self._passes.start([part])()[0]
        tokens = part.tree_pass.shape.new
        return search.parent.switch(_Waiting(search, self._passes, part, tokens))


class _Search(greenlet.greenlet):  # type: ignore[misc]  # greenlet has no types
    """Runs searches in the loop, one after another; ``parent`` is the loop's own greenlet.

    It gives the loop None when it waits for a search: a new greenlet costs ten times as much as
    continuing one.
    """

    def run(self) -> None:
        while True:
            search = self.parent.switch(None)
            search()
            del search  # it may hold its user's cache


@dataclass(slots=True)
class _Waiting:
    """A search that waits for a pass of so many tokens."""

    search: _Search
    passes: JoinablePasses
    part: UserPass
    tokens: int

    def joins(self, first: _Waiting) -> bool:
        """Return whether a pass can do the same for both, whatever their lengths."""
        return self.passes is first.passes and self.part.kind == first.part.kind


@dataclass(frozen=True, slots=True)
class _Started:
    """A pass that the device computes, and the searches that wait for it."""

    group: list[_Waiting]
    answers: Callable[[], list[Any]]


class PassLoop:
    """Runs searches until each has ended. One thread uses it.

    Args:
        most_tokens: Most tokens of a joined pass, padding included. A single search's pass may have
            more.
    """

    def __init__(self, most_tokens: int = JOINED_TOKENS) -> None:
        self._most_tokens = self._most_users = most_tokens
        self._waiting: list[_Waiting] = []
        self._idle: list[_Search] = []
        self._started: _Started | None = None

    def __len__(self) -> int:
        """Return the number of searches that have not ended."""
        return len(self._waiting) + (len(self._started.group) if self._started else 0)

    def admit(self, search: Callable[[], None]) -> None:
        """Begin a search; it runs until it waits for its first pass.

        Args:
            search: Called without an argument. It must not raise, and keeps its answer itself.
        """
        if not self._idle:
            self._idle.append(_Search())
            self._idle[-1].switch()
        begun = self._idle.pop()
        self._keep(begun, begun.switch(search))

    def step(self) -> None:
        """Start a pass for the search that waits longest and others like it, if any waits.

        Then continue the searches of the pass before. A fault of a pass is raised in each of its
        searches, and in no other. If the device has too little memory for a pass of several users,
        passes have at most half as many from then on, and its searches wait again.
        """
        before = self._started
        self._started = None
        if self._waiting:
            group = self._next_group()
            try:
                self._started = _Started(group, group[0].passes.start(_parts(group)))
            except DeviceFullError as error:
                self._make_smaller(group, error)
            except Exception as error:  # noqa: BLE001  the searches handle it
                self._raise(group, error)
        if before is not None:
            self._answer(before)

    def _make_smaller(self, group: list[_Waiting], error: DeviceFullError) -> None:
        if len(group) == 1:
            self._raise(group, error)
            return
        self._most_users = len(group) // 2
        _log.warning("%s; passes have at most %d users from now on", error, self._most_users)
        self._waiting = [*group, *self._waiting]

    def _answer(self, started: _Started) -> None:
        try:
            answers = started.answers()
        except Exception as error:  # noqa: BLE001  the searches handle it
            self._raise(started.group, error)
            return
        for each, answer in zip(started.group, answers, strict=True):
            self._keep(each.search, each.search.switch(answer))

    def _raise(self, group: Sequence[_Waiting], error: Exception) -> None:
        for each in group:
            self._keep(each.search, each.search.throw(error))

    def run(self, searches: Iterable[Callable[[], None]], most: int = MOST_SEARCHES) -> None:
        """Run searches to their ends, at most ``most`` at a time."""
        left = iter(searches)
        is_over = False
        while not is_over or len(self):
            while not is_over and len(self) < most:
                if (search := next(left, None)) is None:
                    is_over = True
                else:
                    self.admit(search)
            if len(self):
                self.step()

    def _next_group(self) -> list[_Waiting]:
        """Return the first waiting search and those whose passes are about as long as its."""
        first = self._waiting[0]
        longest, ahead = power_of_two(first.tokens), first.part.tokens_ahead
        positions = len(first.part.tree_pass.positions)
        # What is extended ahead comes after the prompt and uses its memory again.
        cells = max(longest * positions, ahead * (positions + ahead))
        most = min(self._most_tokens // max(longest, ahead), JOINED_CELLS // cells)
        most = max(1, min(most, self._most_users))
        if len(self._waiting) >= _HALVED:
            most = min(most, -(-len(self._waiting) // 2))
        group: list[_Waiting] = []
        left: list[_Waiting] = []
        for each in self._waiting:
            is_alike = longest // 2 < each.tokens <= longest and each.joins(first)
            (group if is_alike and len(group) < most else left).append(each)
        self._waiting = left
        return group

    def _keep(self, search: _Search, asked: _Waiting | None) -> None:
        """Note what a search waits for, or that it has ended."""
        if asked is None:
            self._idle.append(search)
        else:
            self._waiting.append(asked)


def _parts(group: Sequence[_Waiting]) -> list[UserPass]:
    return [each.part for each in group]
