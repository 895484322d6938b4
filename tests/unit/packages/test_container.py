"""The Dockerfile and the compose file: pinned, locked down, with commands that exist."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from adprior_build.commands import build
from adprior_build.tensorrt_llm.tool_commands import step_environment
from adprior_runtime.commands import serve
from adprior_runtime.engines.registry import GPU_IMAGE
from support.extras import code_that_hides, modules_without
from support.paths import ROOT
from support.processes import run

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
HADOLINT = ("hadolint",)
COMPOSE_SCHEMA = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")


def test_the_base_image_is_pinned() -> None:
    assert f"ARG BASE={GPU_IMAGE}\n" in DOCKERFILE
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}


def test_installation_replaces_no_package_of_the_image() -> None:
    assert "--constraint /tmp/constraints.txt" in DOCKERFILE
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = document["project"]["optional-dependencies"]["gpu"]
    names = {re.split(r"[\[>=<]", item)[0] for item in wanted}
    assert names == {
        "fsspec", "greenlet", "numba", "numpy", "onnx", "onnxruntime", "protobuf", "pyarrow",
        "safetensors", "tokenizers", "tqdm",
    }  # fmt: skip
    assert not any("<" in item or "==" in item for item in wanted)


def test_an_image_without_torch_gets_the_engines_torch() -> None:
    """The image of TensorRT-LLM has another torch, with which the extra ``torch`` conflicts."""
    image = GPU_IMAGE.replace("trtllm-python-", "")
    assert f"--build-arg BASE={image} \\\n#     --build-arg EXTRAS=gpu,torch" in DOCKERFILE
    assert re.search(r"^ARG EXTRAS=gpu$", DOCKERFILE, re.MULTILINE)
    assert '"${wheel}[${EXTRAS}]"' in DOCKERFILE
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = {re.split(r"[\[>=<]", item)[0] for item in extras["optional-dependencies"]["torch"]}
    assert own == {"greenlet", "safetensors", "torch"}  # no tritonserver, no limit on NumPy


IMPORT_ALL = """
import pkgutil, sys, types
from importlib import import_module
sys.modules["triton_python_backend_utils"] = types.ModuleType("only in a tritonserver")
for package in sys.argv[1:]:
    for module in pkgutil.walk_packages(import_module(package).__path__, package + "."):
        if ".engines.torch_" not in module.name:  # these need the extra "torch"
            import_module(module.name)
            print(module.name)
"""


def test_all_that_runs_on_a_gpu_node_imports_with_the_gpu_extra_alone() -> None:
    absent = modules_without("gpu")
    assert {"tritonclient", "grpc"} <= absent
    packages = ("adprior_runtime", "adprior_build.tensorrt_llm", "adprior_build.repository")
    done = run(sys.executable, "-c", code_that_hides(absent) + IMPORT_ALL, *packages)
    assert done.returncode == 0, done.stderr
    assert "adprior_runtime.triton.prior_head" in done.stdout.split()


def test_the_images_versions_take_precedence_over_the_lock(tmp_path: Path) -> None:
    (program,) = re.findall(r"awk -F== '(.+)'", DOCKERFILE)
    installed, lock = tmp_path / "installed.txt", tmp_path / "lock.txt"
    installed.write_text("numpy==1.26.4\ntyping_extensions==4.1.0\n")
    lock.write_text("# a comment\nnumpy==2.5.5\ntqdm==4.70.1\ntyping-extensions==4.16.0\n")
    merged = run("awk", "-F==", program, installed, lock).stdout
    assert merged == "numpy==1.26.4\ntyping_extensions==4.1.0\n# a comment\ntqdm==4.70.1\n"


def test_the_image_runs_as_an_unprivileged_user() -> None:
    assert re.search(r"^USER 1000:1000$", DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.rindex("USER ") > DOCKERFILE.rindex("RUN ")


def test_the_dockerfile_copies_the_files_of_its_context() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {word for line in copied for word in line.split()}
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert sources == {line[1:] for line in allowed if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize(
    ("linter", "text", "is_right"),
    [
        (HADOLINT, DOCKERFILE, True),
        (HADOLINT, DOCKERFILE.replace("USER 1000:1000", "RUN cd /tmp\nUSER root"), False),
        (COMPOSE_SCHEMA, COMPOSE, True),
        (COMPOSE_SCHEMA, COMPOSE.replace("shm_size", "shm"), False),
    ],
    ids=["Dockerfile", "broken Dockerfile", "compose", "broken compose"],
)
def test_linters_accept_the_files_and_find_errors(
    tmp_path: Path, linter: tuple[str, ...], text: str, *, is_right: bool
) -> None:
    program = shutil.which(linter[0], path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{linter[0]} is not installed here (adprior[dev] has it)")
    path = tmp_path / "compose.yaml"
    path.write_text(text)
    done = run(program, *linter[1:], path)
    assert (done.returncode == 0) == is_right, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "1000:1000"
    assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service)
    assert service["ulimits"] == {"memlock": -1, "stack": 67108864}
    assert service["shm_size"] == "2g"
    device = service["deploy"]["resources"]["reservations"]["devices"][0]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_published_ports_are_on_loopback() -> None:
    assert SERVICES["serve"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in (8001, 8002)]
    assert "--http-host" not in SERVICES["serve"]["command"]
    assert "ports" not in SERVICES["build"]
    assert SERVICES["build"]["network_mode"] == "none"


def test_the_image_by_itself_accepts_no_plain_text_from_other_machines() -> None:
    (command,) = re.findall(r"^CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert "--insecure" not in command
    assert "--insecure" in SERVICES["serve"]["command"]  # its ports are on loopback


def test_only_the_output_of_a_build_is_writable() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service["volumes"]]
    assert {each["target"] for each in volumes if not each.get("read_only")} == {"/output"}
    assert SERVICES["serve"]["volumes"][0]["target"] == "/models"


def test_the_tools_of_a_build_write_to_the_output_and_not_to_tmp() -> None:
    """A tmpfs is mounted noexec, and compilers load what they write (`step_environment`)."""
    service = SERVICES["build"]
    assert [each.partition(":")[0] for each in service["tmpfs"]] == ["/tmp"]
    output = Path(service["command"][service["command"].index("--output") + 1])
    places = step_environment(output.with_name(f"{output.name}.work"))
    assert places["HOME"] == places["TMPDIR"] == "/output/repository.work/cache"
    assert not [name for name, value in places.items() if value.startswith("/tmp")]


@pytest.mark.parametrize(("module", "service"), [(serve, "serve"), (build, "build")])
def test_adprior_accepts_the_services_commands(module: Any, service: str) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    name, *options = SERVICES[service]["command"]
    assert name == service
    parser.parse_args(options)


def _health_checks() -> list[str]:
    """Return the Python code of the image's and compose's health checks."""
    (image,) = re.findall(r'^ *CMD (\["python3", "-c".+\])$', DOCKERFILE, re.MULTILINE)
    compose = SERVICES["serve"]["healthcheck"]["test"]
    assert compose[0] == "CMD"
    return [json.loads(image)[2], compose[3]]


@pytest.mark.parametrize("code", _health_checks(), ids=["image", "compose"])
@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (400, False)])
def test_a_health_check_calls_the_server_without_a_proxy(
    code: str, status: int, *, is_healthy: bool
) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v2/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        code = code.replace("8000", str(server.server_port))
        environ = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
        done = run(sys.executable, "-c", code, env=environ)
    assert (done.returncode == 0) == is_healthy
