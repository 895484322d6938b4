"""A forecast for people: one line, a table of a notebook, a data frame.

An empty forecast says why it is empty: a caller who looks at it wants to know that first.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from adprior_client.types import Reason, Source

if TYPE_CHECKING:
    from adprior_client.results import Advertiser, Forecast

_LISTED: Final = 3
_WHY: Final[Mapping[Reason, str]] = {
    Reason.DEADLINE: "no answer before the deadline; give it more time (deadline_s)",
    Reason.UNAVAILABLE: "no server answered; is one running and ready at these urls?",
    Reason.BREAKER_OPEN: "calls failed before, so none is sent for a while (breaker_reset_s)",
    Reason.BAD_ANSWER: "the server failed, or its answer breaks the contract; see its log",
    Reason.OTHER_BUNDLE: "the server has another bundle than the forecast",
    Reason.REFUSED: "the server refuses the user's context",
    Reason.DENIED: "the server refuses the credentials (token_file, tls)",
    Reason.CANCELLED: "the call was cancelled, or the client closed",
    Reason.KILL_SWITCH: "the kill switch is on",
    Reason.CONTROL: "the user is a control user (treatment=False)",
    Reason.SHADOW: "shadow mode: what would have been applied is in withheld",
}
_RAISED: Final = frozenset(Reason) - {Reason.KILL_SWITCH, Reason.CONTROL, Reason.SHADOW}
"""Reasons for which a client with ``fail_open=False`` raises an error."""


def explain_empty(forecast: Forecast) -> str:
    """Return why a forecast lists no advertisers, in one line."""
    reason = forecast.reason
    if reason is None:
        return "EMPTY: the answer lists no advertiser (k of 0, or all are excluded)"
    raised = "; fail_open=False raises the error" if reason in _RAISED else ""
    return f"EMPTY, {reason}: {_WHY[reason]}{raised}"


def describe(forecast: Forecast) -> str:
    """Return a forecast in one line."""
    if not forecast.advertisers:
        return f"Forecast({explain_empty(forecast)})"
    first = ", ".join(
        f"{item.name!r} {item.probability:.2%}" for item in forecast.advertisers[:_LISTED]
    )
    more = len(forecast.advertisers) - _LISTED
    return f"Forecast({first}{f', and {more} more' if more > 0 else ''}; {_footer(forecast)})"


def to_html(forecast: Forecast) -> str:
    """Return a forecast as the HTML that a notebook shows."""
    if not forecast.advertisers:
        return f"<strong>Forecast: {escape(explain_empty(forecast))}</strong>"
    rows = "".join(_row(place, item) for place, item in enumerate(forecast.advertisers, start=1))
    return (
        "<table><thead><tr><th></th><th>advertiser</th><th>id</th><th>probability</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><p>{escape(_footer(forecast))}</p>"
    )


def to_frame(forecast: Forecast) -> Any:
    """Return a ``pandas.DataFrame`` with a row for each advertiser; warn if there is none.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    try:
        import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415  a service needs none
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to_pandas needs the package pandas: pip install pandas", name="pandas"
        ) from error
    if not forecast.advertisers:
        warnings.warn(f"forecast is {explain_empty(forecast)}", stacklevel=3)
    found: Sequence[Advertiser] = forecast.advertisers
    frame = pd.DataFrame(
        {
            "advertiser_id": pd.Series([item.advertiser_id for item in found], dtype="int64"),
            "name": pd.Series([item.name for item in found], dtype="object"),
            "probability": pd.Series([item.probability for item in found], dtype="float64"),
            "log_prob": pd.Series([item.log_prob for item in found], dtype="float64"),
        }
    )
    frame.attrs = {
        "exact": forecast.exact,
        "missing_mass": forecast.missing_mass,
        "bundle_id": forecast.bundle_id,
        "source": str(forecast.source),
        "reason": None if forecast.reason is None else str(forecast.reason),
    }
    return frame


def _row(place: int, item: Advertiser) -> str:
    return (
        f"<tr><td>{place}</td><td>{escape(item.name)}</td><td>{item.advertiser_id}</td>"
        f"<td>{item.probability:.2%}</td></tr>"
    )


def _footer(forecast: Forecast) -> str:
    proof = "exact" if forecast.exact else "not certified"
    parts = [proof, f"all others at most {forecast.missing_mass:.1%}", str(forecast.source)]
    if forecast.source is not Source.LIVE and forecast.reason is not None:
        parts.append(f"because {forecast.reason}: {_WHY[forecast.reason]}")
    return ", ".join(parts)
