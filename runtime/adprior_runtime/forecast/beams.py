"""Beams, as an engine gives them, to token paths that a catalogue can be asked for.

Two engines, two habits. The embedded one gives names of the catalogue, terminator included.
TensorRT-LLM's stock beam search knows no catalogue: a beam that ended counts the terminator's
probability and leaves its token out; one that the output length cut off has that length exactly.
So NVIDIA/TensorRT-LLM has it in ``cpp/tensorrt_llm/kernels/beamSearchKernels/`` (commit
2a9abd9536aa62ad3e4b9314be9286b1b1be523b) and ``cpp/tensorrt_llm/batch_manager/`` (commit
b35ac1b64368513d215c57d2ed01d62d910df8da, 1.2.0rc2); not run here.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from adprior_runtime.errors import ModelOutputError


class DropReason(StrEnum):
    """Why a beam adds nothing to a forecast.

    Attributes:
        INCOMPLETE: Cut off before its terminator: its probability is that of a prefix.
        OFF_CATALOGUE: Complete, and the name of no advertiser.
        DUPLICATE: Complete, and there already.
    """

    INCOMPLETE = "incomplete"
    OFF_CATALOGUE = "off_catalogue"
    DUPLICATE = "duplicate"


def beams_to_paths(
    output_ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]
) -> list[list[int]]:
    """Cut padded beams to their lengths: [beams, longest], [beams] -> token paths.

    Raises:
        ModelOutputError: They do not fit one another. An engine gave them: no caller can.
    """
    if output_ids.ndim != 2 or len(output_ids) != len(lengths):
        raise ModelOutputError(
            f"output_ids: shape {output_ids.shape} does not fit {len(lengths)} sequence lengths"
        )
    if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= output_ids.shape[1]:
        raise ModelOutputError(
            f"sequence_length: found {lengths.min()} to {lengths.max()}, "
            f"expected 0 to {output_ids.shape[1]}, the columns of output_ids"
        )
    return [row[:length].tolist() for row, length in zip(output_ids, lengths, strict=True)]


def complete_path(path: list[int], *, terminator: int, output_length: int) -> list[int]:
    """Return a beam's path up to its terminator, which is added where the engine left it out.

    Args:
        path: The beam's tokens, without the prompt.
        terminator: The token that ends a name.
        output_length: How many tokens the engine was asked for (``request_output_len``).

    Returns:
        A path that ends with the terminator, and with it alone; one that does not, where the beam
        was cut off.
    """
    if terminator in path:
        return path[: path.index(terminator) + 1]
    return [*path, terminator] if len(path) < output_length else path
