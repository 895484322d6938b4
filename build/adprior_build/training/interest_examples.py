"""Interests as targets: the category of the event that follows a window.

A served interest follows the whole prompt and the template's ``interest_tail``, and so does an
example::

    the window's events   the prompt's tail for the next event's day   interest_tail   interest

It ends its window, so no later token sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event
from adprior_runtime.prompt.renderer import PromptRenderer, Section
from adprior_runtime.prompt.template import PromptTemplate, in_words


@dataclass(frozen=True, slots=True, kw_only=True)
class InterestExample:
    """The tokens after a window's events.

    Attributes:
        tail_ids: The prompt's tail.
        interest_tail_ids: The template's ``interest_tail``.
        name_ids: The interest's name with its terminator, which are targets.
    """

    tail_ids: Sequence[int]
    interest_tail_ids: Sequence[int]
    name_ids: Sequence[int]


class InterestExamples:
    """Makes the examples of users' histories.

    Attributes:
        depth: Tokens of the longest example after the prompt.

    Args:
        catalogue: The interests.
        renderer: Renders the prompts; its template has an ``interest_tail``.
    """

    def __init__(self, catalogue: Catalogue, renderer: PromptRenderer) -> None:
        self._renderer = renderer
        self._tail_ids = renderer.interest_tail_ids
        trie, _ = catalogue.build_trie(renderer.name_ids)
        self.depth = len(self._tail_ids) + trie.depth

        @cache
        def known(category: str) -> list[int] | None:
            name_ids = renderer.name_ids(in_words(category))
            return name_ids if trie.lookup(tuple(name_ids)) >= 0 else None

        self._known = known

    def between(
        self, events: Sequence[Event], sections: Sequence[Section]
    ) -> list[InterestExample | None]:
        """Return the example before each event, and None after the last one.

        It has the category of that event. An event without an interest has none; if moreover no
        prompt shows that event, the example is the one before the event that follows.

        Args:
            events: A history, oldest first.
            sections: Of the events.
        """
        examples: list[InterestExample | None] = [None]
        tails = self._renderer.tails_before(events)
        for event, section, tail in zip(
            reversed(events), reversed(sections), reversed(tails), strict=True
        ):
            name_ids = self._known(event.category) if event.category else None
            if name_ids is not None:
                examples.append(
                    InterestExample(
                        tail_ids=tail, interest_tail_ids=self._tail_ids, name_ids=name_ids
                    )
                )
            else:
                examples.append(None if section.token_ids else examples[-1])
        return examples[::-1]


def require_interest_tail(template: PromptTemplate | None, source: Path) -> None:
    """Refuse a template that cannot tell an interest from an advertiser.

    Args:
        template: The template of the training; None for the plain one, which has no tail.
        source: Where the interests come from, for the message.

    Raises:
        InvalidInputError: The template has no ``interest_tail``.
    """
    if template is None or not any(template.interest_tail):
        raise InvalidInputError(
            f"{source}: the prompt template has no interest_tail, the text between a prompt and an "
            'interest: give a --template with one, such as ["category: "]'
        )
