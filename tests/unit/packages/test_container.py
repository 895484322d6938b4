from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from adprior_runtime.engines.gpu_faults import IMAGE

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def linter(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed here (adprior[dev] has it)")
    return found


def test_the_image_is_the_pinned_one() -> None:
    assert f"ARG BASE={IMAGE}\n" in DOCKERFILE
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}


def test_nothing_of_the_image_is_exchanged() -> None:
    assert "--constraint /tmp/constraints.txt" in DOCKERFILE
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = document["project"]["optional-dependencies"]["gpu"]
    names = {re.split(r"[\[>=<]", item)[0] for item in wanted}
    assert names == {"adprior", "onnx", "onnxruntime", "pyarrow", "tokenizers", "tqdm"}
    assert not any("<" in item or "==" in item for item in wanted)


def test_the_image_goes_before_the_lock(tmp_path: Path) -> None:
    (program,) = re.findall(r"awk -F== '(.+)'", DOCKERFILE)
    installed, lock = tmp_path / "installed.txt", tmp_path / "lock.txt"
    installed.write_text("numpy==1.26.4\ntyping_extensions==4.1.0\n")
    lock.write_text("# a comment\nnumpy==2.5.5\ntqdm==4.70.1\ntyping-extensions==4.16.0\n")
    command = ["awk", "-F==", program, str(installed), str(lock)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    assert found == [
        "numpy==1.26.4", "typing_extensions==4.1.0", "# a comment", "tqdm==4.70.1", "",
    ]  # fmt: skip


def test_it_runs_as_nobody_in_particular() -> None:
    assert re.search(r"^USER 1000:1000$", DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.rindex("USER ") > DOCKERFILE.rindex("RUN ")


def test_the_dockerfile_copies_what_the_context_has() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {word for line in copied for word in line.split()}
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert sources == {line[1:] for line in allowed if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    hadolint = linter("hadolint")
    subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], check=True)
    planted = tmp_path / "Dockerfile"
    planted.write_text(DOCKERFILE.replace("USER 1000:1000", "RUN cd /tmp\nUSER root"))
    found = subprocess.run([hadolint, str(planted)], check=False, capture_output=True, text=True)
    assert found.returncode != 0
    assert "DL3003" in found.stdout


def test_the_compose_file_is_one(tmp_path: Path) -> None:
    command = [linter("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*command, str(DEPLOY / "compose.yaml")], check=True, capture_output=True)
    planted = tmp_path / "compose.yaml"
    planted.write_text((DEPLOY / "compose.yaml").read_text().replace("shm_size", "shm"))
    assert subprocess.run([*command, str(planted)], check=False, capture_output=True).returncode


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


def test_ports_are_on_loopback() -> None:
    assert SERVICES["serve"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in (8001, 8002)]
    assert "--http-host" not in SERVICES["serve"]["command"]
    assert "ports" not in SERVICES["build"]
    assert SERVICES["build"]["network_mode"] == "none"


def test_the_image_alone_takes_no_plain_text_from_other_machines() -> None:
    (command,) = re.findall(r"^CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert "--insecure" not in command
    assert "--insecure" in SERVICES["serve"]["command"]  # its ports are on loopback


def test_only_the_output_of_a_build_is_written() -> None:
    writable = {
        volume["target"]
        for service in SERVICES.values()
        for volume in service["volumes"]
        if not volume.get("read_only")
    }
    assert writable == {"/output"}
    assert SERVICES["serve"]["volumes"][0]["target"] == "/models"


def test_commands_are_those_that_adprior_has() -> None:
    from adprior_build.commands import build  # noqa: PLC0415
    from adprior_runtime.commands import serve  # noqa: PLC0415

    for module, service in ((serve, "serve"), (build, "build")):
        import argparse  # noqa: PLC0415

        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        name, *options = SERVICES[service]["command"]
        assert name == service
        parser.parse_args(options)
    assert SERVICES["serve"]["healthcheck"]["test"][0] == "CMD"


def _health_checks() -> list[str]:
    """Return the health checks' Python: the image's own, and compose's."""
    [line] = [
        line for line in DOCKERFILE.splitlines() if line.strip().startswith('CMD ["python3", "-c"')
    ]
    image = json.loads(line.strip().removeprefix("CMD "))
    return [image[2], SERVICES["serve"]["healthcheck"]["test"][3]]


@pytest.mark.parametrize("code", _health_checks(), ids=["image", "compose"])
@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (400, False)])
def test_a_health_check_asks_the_server_and_no_proxy(
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
        asked = code.replace("8000", str(server.server_port))
        environ = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
        done = subprocess.run([sys.executable, "-c", asked], env=environ, check=False)
    assert (done.returncode == 0) == is_healthy
