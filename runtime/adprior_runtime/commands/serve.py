"""``adprior serve``: start tritonserver on a model repository."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Final

from adprior_runtime.bundle import MANIFEST, MODEL_FILES, PROMPT_FILE, Manifest, check_seal
from adprior_runtime.contract import CPU_CONFIG_NAME, LLM_ENGINE, MODEL_NAMES, TOKENIZER
from adprior_runtime.engines.compiled_tensorrt_llm import (
    NeededSizes,
    engine_mismatches,
    find_engine,
    read_engine_config,
    read_engine_parameters,
)
from adprior_runtime.engines.gpu_faults import IMAGE
from adprior_runtime.engines.registry import ONNX
from adprior_runtime.errors import ArtefactError, EnvironmentProblemError, InvalidInputError
from adprior_runtime.files.file_modes import check_unwritable
from adprior_runtime.prompt.renderer import PromptTemplate
from adprior_runtime.repository.served_configs import check_configs
from adprior_runtime.server.access import Access
from adprior_runtime.server.installation import find_installation
from adprior_runtime.server.supervision import (
    Restarts,
    StopRequested,
    keep_previous,
    serve_on,
    signals_stop,
)
from adprior_runtime.server.tritonserver import TritonServer

MOST_RESTARTS: Final = 10

EXAMPLE: Final = """\
examples:
  adprior serve --repository repo --grpc-port 8001
  adprior serve --repository repo --host 0.0.0.0 --tls-cert server.pem --tls-key server-key.pem \\
    --tls-client-ca callers.pem --inference-token-file token

docs/security.md says what each protects from."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--repository", type=Path, required=True, metavar="REPO", help="what `adprior build` made"
    )
    _add_endpoints(parser)
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="what the embedded engine runs on; cuda needs onnxruntime-gpu (default: %(default)s)",
    )
    parser.add_argument(
        "--log-file", type=Path, metavar="FILE", help="keep the server's log (default: dropped)"
    )
    parser.add_argument(
        "--ready-timeout",
        type=float,
        default=120,
        metavar="SECONDS",
        help="how long the models may take to load (default: %(default)s)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=0,
        metavar="SECONDS",
        help="on SIGTERM, serve on for so long, for a load balancer that takes servers out by "
        "itself; a second signal stops at once (default: %(default)s)",
    )
    parser.add_argument(
        "--no-restart",
        action="store_true",
        help="end when the server ends, if something else restarts this command; by default it is "
        f"started again, up to {MOST_RESTARTS} times in 10 minutes",
    )


def _add_endpoints(parser: argparse.ArgumentParser) -> None:
    for flag, told in (("host", "gRPC"), ("http-host", "HTTP"), ("metrics-host", "Prometheus")):
        parser.add_argument(
            f"--{flag}",
            default="127.0.0.1",
            metavar="ADDRESS",
            help=f"address to bind for {told} (default: %(default)s)",
        )
    for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="PORT", help="default: %(default)s"
        )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="take plain text from other machines: the network is trusted, or encrypts",
    )
    for flag, told in (
        ("tls-cert", "the server's certificate chain, PEM: gRPC takes TLS alone"),
        ("tls-key", "its private key, for its owner alone to read"),
        ("tls-client-ca", "mutual TLS: authorities of the callers' certificates, PEM"),
        ("inference-token-file", "callers must present this token for everything but health"),
        ("admin-token-file", "for shared memory, tracing, logging (default: nobody has it)"),
    ):
        parser.add_argument(f"--{flag}", type=Path, metavar="FILE", help=told)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal (0), or until the server ended by itself too often (1)."""
    repository: Path = args.repository
    if not 0 < args.ready_timeout < math.inf:
        raise InvalidInputError(f"--ready-timeout {args.ready_timeout}: expected more than 0 s")
    if not 0 <= args.drain_seconds < math.inf:
        raise InvalidInputError(f"--drain-seconds {args.drain_seconds}: expected at least 0 s")
    access = Access.of_files(
        certificate=args.tls_cert,
        key=args.tls_key,
        client_ca=args.tls_client_ca,
        admin_token=args.admin_token_file,
        inference_token=args.inference_token_file,
    )
    restarts = Restarts(most=0 if args.no_restart else MOST_RESTARTS)

    def start() -> TritonServer:
        # Each time: what is served the next time may have been exchanged meanwhile.
        _check_repository(repository)
        config_name = _choose_config(repository)
        check_configs(repository, config_name)
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
            config_name=config_name,
            device=args.device,
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
            "this system does not let its arguments be blanked",
            file=sys.stderr,
        )


def _check_repository(repository: Path) -> None:
    if not repository.is_dir():
        raise InvalidInputError(f"{repository}: no such directory; make it with `adprior build`")
    for name in MODEL_NAMES:
        for part in (Path(name) / "config.pbtxt", Path(name) / "1"):
            if not (repository / part).exists():
                raise InvalidInputError(
                    f"{repository}: not a model repository that `adprior build` made (no {part})"
                )
    manifests = {name: repository / name / "1" / "bundle" / MANIFEST for name in MODEL_FILES}
    bundle_ids = {name: Manifest.load(path).bundle_id for name, path in manifests.items()}
    if len(set(bundle_ids.values())) > 1:
        found = ", ".join(f"{name} {bundle_id}" for name, bundle_id in bundle_ids.items())
        raise InvalidInputError(f"{repository}: models of different bundles: {found}")
    check_unwritable(repository)
    for path in manifests.values():
        check_seal(path)
    for entry in sorted(repository.iterdir()):
        # The server takes any directory for a model, and refuses to start on one that is none.
        if entry.is_dir() and not (entry / "config.pbtxt").is_file():
            raise InvalidInputError(f"{entry}: not a model; the server would not start; remove it")


def _choose_config(repository: Path) -> str | None:
    """Return the name of the embedded configuration, or None for a compiled engine's repository.

    An engine is looked at before the server is: what would fail at load, or at the first long
    prompt, is one line here.
    """
    version = repository / LLM_ENGINE / "1"
    manifest = Manifest.load(version / "bundle" / MANIFEST)
    engine = find_engine(version)
    if manifest.engine == ONNX.name and engine is None:
        return CPU_CONFIG_NAME
    if engine is None:
        raise InvalidInputError(
            f"{version}: no engine yet; run the commands that `adprior build --dry-run` printed "
            f"inside {IMAGE}, or build without --dry-run"
        )
    if find_installation().is_embedded:
        raise EnvironmentProblemError(
            f"{repository}: holds a TensorRT-LLM engine, which the embedded tritonserver cannot "
            f"run; serve it inside {IMAGE}"
        )
    _check_engine(repository, version, manifest)
    return None


def _check_engine(repository: Path, version: Path, manifest: Manifest) -> None:
    template = PromptTemplate.load(repository / TOKENIZER / "1" / "bundle" / PROMPT_FILE)
    parameters = read_engine_parameters(repository / LLM_ENGINE / "config.pbtxt")
    needed = NeededSizes(
        prompt_tokens=template.max_prompt_tokens,
        name_tokens=manifest.longest_name_tokens,
        beam_width=manifest.beam_width,
    )
    if found := engine_mismatches(read_engine_config(version), parameters, needed):
        raise ArtefactError(
            f"{version}: the engine does not fit: {'; '.join(found)}; build it again for this "
            "catalogue and deployment"
        )
    place = parameters.get("gpt_model_path", "")
    if not Path(place).is_dir() or not Path(place).samefile(version):
        raise InvalidInputError(
            f"{repository}: config.pbtxt looks for the engine in {place}, it is in {version}; "
            "mount the repository where the deployment's repository_path says"
        )
