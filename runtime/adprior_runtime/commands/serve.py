"""``adprior serve``: start tritonserver on a model repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from adprior_runtime.contract import EXACT_TARGETS, Target
from adprior_runtime.delivery.options import add_version_argument
from adprior_runtime.delivery.urls import is_url
from adprior_runtime.delivery.version import SHORT_ID
from adprior_runtime.engines.registry import GPU_IMAGE
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.repository.checker import check_repository, refuse_findings
from adprior_runtime.repository.checks.findings import Level
from adprior_runtime.repository.checks.tensorrt_llm_engine import (
    require_engine_place,
    serves_engine,
)
from adprior_runtime.server.access import Access
from adprior_runtime.server.installation import find_installation
from adprior_runtime.server.log import keep_previous
from adprior_runtime.server.supervision import Restarts, StopRequested, serve_on, signals_stop
from adprior_runtime.server.tritonserver import TritonServer
from adprior_runtime.terminal.options import number_from_zero, positive_number

MAX_RESTARTS: Final = 10

EXAMPLE: Final = """\
examples:
  adprior serve --repository repo --grpc-port 8001
  adprior serve --repository s3://models/adprior
  adprior serve --repository repo --host 0.0.0.0 --tls-cert server.pem --tls-key server-key.pem \\
    --tls-client-ca callers.pem --inference-token-file token

docs/security.md explains what each option protects against."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--repository",
        type=_path_or_url,
        required=True,
        metavar="REPO",
        help="model repository that `adprior build` made, or a URL to which `adprior push` pushed "
        "one: it is pulled first",
    )
    add_version_argument(parser, "--repository-version", "of a URL: ")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIRECTORY",
        help="directory for repositories from URLs (default: adprior in $XDG_CACHE_HOME or "
        "~/.cache)",
    )
    _add_endpoints(parser)
    _add_access(parser)
    parser.add_argument(
        "--device",
        choices=[target.value for target in EXACT_TARGETS],
        help="device of the language model: selects configs/cpu.pbtxt or configs/cuda.pbtxt. cuda "
        "needs a bundle for the torch engine, and a torch built for CUDA (default: cpu; a "
        "TensorRT-LLM engine has its GPU)",
    )
    parser.add_argument(
        "--log-file",
        type=Path,
        metavar="FILE",
        help="file for the server's log (default: no log is kept)",
    )
    parser.add_argument(
        "--ready-timeout",
        type=positive_number,
        default=120,
        metavar="SECONDS",
        help="seconds to wait for the models to load (default: %(default)s)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=number_from_zero,
        default=0,
        metavar="SECONDS",
        help="seconds to continue serving after SIGTERM, while a load balancer removes the server; "
        "a second signal stops it at once (default: %(default)s)",
    )
    parser.add_argument(
        "--no-restart",
        action="store_true",
        help="exit when the server exits, if another program restarts this command; by default "
        f"this command restarts the server, at most {MAX_RESTARTS} times in 10 minutes",
    )


def _add_endpoints(parser: argparse.ArgumentParser) -> None:
    for flag, service in (("host", "gRPC"), ("http-host", "HTTP"), ("metrics-host", "Prometheus")):
        parser.add_argument(
            f"--{flag}",
            default="127.0.0.1",
            metavar="ADDRESS",
            help=f"address to bind for {service} (default: %(default)s)",
        )
    for name, service, port in (
        ("grpc", "gRPC", 8001),
        ("http", "HTTP", 8000),
        ("metrics", "Prometheus", 8002),
    ):
        parser.add_argument(
            f"--{name}-port",
            type=int,
            default=port,
            metavar="PORT",
            help=f"port for {service} (default: %(default)s)",
        )


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="accept unencrypted calls from other machines; only for a network that is trusted or "
        "encrypted",
    )
    for flag, text in (
        ("tls-cert", "PEM file with the server's certificate chain; gRPC then accepts TLS only"),
        ("tls-key", "PEM file with its private key, which other users must not be able to read"),
        ("tls-client-ca", "PEM file with the authorities of callers' certificates (mutual TLS)"),
        ("inference-token-file", "file with a token that every call except health must carry"),
        (
            "admin-token-file",
            "file with the token for calls that change the server: shared memory, tracing, logging "
            "(default: nobody can make them)",
        ),
    ):
        parser.add_argument(f"--{flag}", type=Path, metavar="FILE", help=text)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal arrives (exit code 0) or the server ends by itself too often (1)."""
    access = Access.of_files(
        certificate=args.tls_cert,
        key=args.tls_key,
        client_ca=args.tls_client_ca,
        admin_token=args.admin_token_file,
        inference_token=args.inference_token_file,
    )
    with ExitStack() as held:
        repository: Path | str = args.repository
        if isinstance(repository, str):
            repository = held.enter_context(_pulled(repository, args))
        return _serve(args, repository, access)


def _path_or_url(text: str) -> Path | str:
    return text if is_url(text) else Path(text)


@contextmanager
def _pulled(url: str, args: argparse.Namespace) -> Iterator[Path]:
    """Pull a repository, and keep it until the command ends."""
    from adprior_runtime.delivery.kept_copies import hold_copy  # noqa: PLC0415  fsspec

    with hold_copy(url, args.repository_version, args.cache) as copy:
        if copy.problem:
            print(
                f"adprior serve: {copy.problem}; serving {copy.version_id[:SHORT_ID]}, which was "
                "pulled before",
                file=sys.stderr,
                flush=True,
            )
        yield copy.directory


def _serve(args: argparse.Namespace, repository: Path, access: Access) -> int:
    restarts = Restarts(most=0 if args.no_restart else MAX_RESTARTS)

    def start() -> TritonServer:
        # Checked at each start, because the repository may have been replaced meanwhile.
        exact = Target(args.device or Target.CPU)
        findings = check_repository(repository, Level.QUICK, target=exact)
        refuse_findings(repository, findings, f"; adprior build --check {repository}")
        target = _require_engine(args, repository) if serves_engine(repository) else exact
        keep_previous(args.log_file)
        return TritonServer.start(
            repository,
            host=args.host,
            http_host=args.http_host,
            metrics_host=args.metrics_host,
            grpc_port=args.grpc_port,
            http_port=args.http_port,
            metrics_port=args.metrics_port,
            access=access,
            is_insecure=args.insecure,
            target=target,
            log_file=args.log_file,
            ready_timeout_s=args.ready_timeout,
        )

    try:
        with signals_stop():
            failure = serve_on(start, _announce, restarts, drain_s=args.drain_seconds)
    except StopRequested:
        return 0
    print(f"adprior serve: the server stopped: {failure}", file=sys.stderr)
    return 1


def _announce(server: TritonServer) -> None:
    print(
        f"adprior: ready · grpc {server.grpc_address} · http {server.http_address}"
        f" · metrics {server.metrics_address}",
        flush=True,
    )
    if not server.hides_tokens:
        print(
            "adprior serve: other users of this machine can list the server's tokens: "
            "this system does not allow to overwrite its arguments",
            file=sys.stderr,
        )


def _require_engine(args: argparse.Namespace, repository: Path) -> Target:
    """Return the configuration of a compiled engine, if it can be served here."""
    if args.device == Target.CPU:
        raise InvalidInputError(
            f"--device cpu: {repository} holds a TensorRT-LLM engine, which runs on a GPU only"
        )
    if find_installation().is_embedded:
        raise EnvironmentProblemError(
            f"{repository}: holds a TensorRT-LLM engine, which the embedded tritonserver cannot "
            f"run; serve it inside {GPU_IMAGE}"
        )
    require_engine_place(repository)
    return Target.TENSORRT_LLM
