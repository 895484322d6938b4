"""The JSON files that `adprior predict` and `adprior rank` read.

Errors name the file and the place in it. Only the outer object of a user's context is checked here;
the client checks the rest.
"""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import Final

from adprior_client.cli.json_document import JsonValue, parse_json
from adprior_client.results import Advertiser, Forecast
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import InvalidInputError

STANDARD_INPUT: Final = "-"


def read_user(path: str) -> bytes:
    """Return the user context in a file, a JSON object, without a byte-order mark."""
    raw = _read(path)
    if len(raw) > MAX_CONTEXT_BYTES:
        raise InvalidInputError(
            f"{_shown(path)}: {len(raw)} bytes, at most {MAX_CONTEXT_BYTES} are taken"
        )
    document = parse_json(raw, _shown(path))
    if not isinstance(document.value, dict):
        raise document.wrong("an object with profile, history and as_of")
    return raw


def read_candidates(path: str) -> tuple[list[int], list[float]]:
    """Return advertiser ids and base logits from a JSON list of ``{advertiser_id, base_logit}``."""
    return candidates_of(parse_json(_read(path), _shown(path)))


def candidates_of(document: JsonValue) -> tuple[list[int], list[float]]:
    """Return advertiser ids and base logits from a list of ``{advertiser_id, base_logit}``."""
    candidates = document.items("a list of {advertiser_id, base_logit}")
    ids = [item["advertiser_id"].integer() for item in candidates]
    return ids, [item["base_logit"].number() for item in candidates]


def read_forecast(path: str) -> Forecast:
    """Return the forecast in a file, in the form of ``adprior predict --json``."""
    return forecast_of(parse_json(_read(path), _shown(path)))


def forecast_of(document: JsonValue) -> Forecast:
    """Return a forecast in the form of `Forecast.to_json`."""
    advertisers = document["advertisers"].items("a list")
    missing_mass = document["missing_mass"].number()
    if not 0.0 <= missing_mass <= 1.0:
        raise document["missing_mass"].wrong("0 to 1")
    return Forecast(
        advertisers=tuple(
            Advertiser(
                advertiser_id=item["advertiser_id"].integer(),
                name=item["name"].of_type(str),
                log_prob=item["log_prob"].number(),
            )
            for item in advertisers
        ),
        exact=document["exact"].of_type(bool),
        missing_mass=missing_mass,
        bundle_id=document["bundle_id"].of_type(str),
    )


def _read(path: str) -> bytes:
    try:
        raw = sys.stdin.buffer.read() if path == STANDARD_INPUT else Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInputError(f"{_shown(path)}: cannot be read: {reason}") from error
    return raw.removeprefix(codecs.BOM_UTF8)


def _shown(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else path
