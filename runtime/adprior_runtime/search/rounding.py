"""The margin: how far apart two log-probabilities must be to prove their order.

Every log-probability of an engine has a rounding error. Let E be the largest error of one token's
log-probability, in nats. The build measures E, and the manifest records it. A name of n tokens sums
n largely independent errors. So the difference of two names of at most D tokens has an error of
about E times the root of 2 D at worst. The margin is twice that::

    margin = 2 E sqrt(2 D)  nats

Log-probabilities travel to the decoder in single precision. This changes the difference of two of
them by up to `_WIRE_ROUNDING` times their size. A proof allows for that too (`provable_below`).

E is proportional to the size of the logits and to the unit roundoff u of single precision, 2^-24.
Random Llamas of width 32 to 384, 2 to 16 layers and logits that span S = 3 to 43 nats, compared
with double precision, had E = 8 to 70 u S. The worst difference of two names of 6 tokens was 1.3 to
2.6 E among 18,000 pairs of each model: the formula allows 6.9 E.

If the model's matrices are rounded to a few bits, E is still the error of the arithmetic: the
probabilities are those of the rounded matrices. What the rounding costs is another measure
(`adprior_build.onnx_graph.parity`).
"""

from __future__ import annotations

import math
from typing import Final

from adprior_runtime.bundle import Manifest

_LEAST_ERROR: Final = 1e-5
"""E is never taken as less than this, even if less was measured on a few prompts."""

_WIRE_ROUNDING: Final = 2.0**-23

_UNMEASURED_ERROR: Final = 3e-5
"""Used for a bundle without a measured E. It is that of a model of 6.8 million parameters, whose
logits span 29 nats, against its graph in double precision on the prompts of 40 users (2.9e-5; 8e-6
at the first tokens of names)."""


def error_of_engine(measured: float) -> float:
    """Return the E that a bundle's manifest records.

    Args:
        measured: Largest difference in log-probability from the checkpoint.
    """
    return rounded_up(max(measured, _LEAST_ERROR))


def rounded_up(value: float) -> float:
    """Return a number above 0 with one digit: machines whose last bits differ agree on it."""
    digit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / digit - 1e-9) * digit:.0e}")


def provable_below(log_prob: float, margin: float) -> float:
    """Return the value below which another log-probability is certainly smaller.

    Args:
        log_prob: The larger log-probability.
        margin: From `margin_nats`.
    """
    return log_prob - margin - _WIRE_ROUNDING * abs(log_prob)


def margin_nats(manifest: Manifest) -> float:
    """Return the smallest difference of two log-probabilities that proves their order."""
    return _margin(manifest.log_prob_error or _UNMEASURED_ERROR, manifest.longest_name_tokens)


def _margin(error: float, longest_name_tokens: int) -> float:
    return 2 * error * math.sqrt(2 * max(longest_name_tokens, 1))


DEFAULT_MARGIN_NATS: Final = _margin(_LEAST_ERROR, longest_name_tokens=8)
"""The margin of a search without a bundle: single precision, small logits and short names."""
