"""A gRPC server that speaks the inference protocol and always answers at once with the same bytes.

``python -m adprior_bench.clients.instant_server N`` answers rankings of N candidates. It prints its
port, and ends when its standard input ends.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from adprior_runtime import contract

BASE_LOGIT = 0.5
"""The base logit of every candidate; the answer is made for it."""


def main(candidates: int) -> int:
    """Serve until the standard input ends."""
    answer = ranking_answer(candidates)
    handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    service = grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService", {"ModelInfer": handler}
    )
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(grace=None).wait()
    return 0


def ranking_answer(count: int) -> bytes:
    """Return the answer to a ranking of ``count`` candidates, as it goes over the wire."""
    tensors: dict[str, NDArray[Any]] = {
        contract.ADJUSTMENTS: np.full((1, count), 0.25, dtype=np.float32),
        contract.CANDIDATE_LOG_PROBS: np.full((1, count), -2.0, dtype=np.float32),
        contract.CANDIDATE_STATUS: np.zeros((1, count), dtype=np.uint8),
        contract.ADJUSTMENT_LIMIT: np.array([[0.5]], dtype=np.float32),
        contract.BUNDLE_ID: np.array([[b"0123456789ab"]], dtype=np.object_),
        contract.ANSWER_VERSION: np.array([[contract.CONTRACT_VERSION.encode()]], dtype=np.object_),
    }
    response: Any = service_pb2.ModelInferResponse(model_name=contract.PRIOR_HEAD)
    for name, values in tensors.items():
        datatype = np_to_triton_dtype(values.dtype)
        response.outputs.add(name=name, datatype=datatype, shape=values.shape)
        text = datatype == "BYTES"
        packed = serialize_byte_tensor(values).item() if text else values.tobytes()
        response.raw_output_contents.append(packed)
    answer: bytes = response.SerializeToString()
    return answer


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
