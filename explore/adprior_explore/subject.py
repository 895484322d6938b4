"""A user whom the page shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adprior_client import InvalidArgumentError
from adprior_client.cli.json_document import JsonValue
from adprior_client.user_context import CheckedContext, user_to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A user, checked.

    Attributes:
        document: The context as the page has it.
        raw: The same as JSON, checked as Triton checks it.
    """

    document: dict[str, Any] = field(repr=False)
    raw: CheckedContext = field(repr=False)

    @classmethod
    def of(cls, value: JsonValue) -> Subject:
        """Check a context; raises InvalidInputError or InvalidArgumentError."""
        document = value.of_type(dict, "an object with profile, history and as_of")
        try:
            return cls(document=document, raw=CheckedContext(user_to_json(document)))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{value.place}: {error}") from error
