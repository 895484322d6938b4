from __future__ import annotations

from pathlib import Path

import pytest

from adprior_bench.server.load import Load, LoadResult, Mode, analyzer_options, run_load
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_bench.server.running_server import read_connection
from adprior_client import ClientConfig
from adprior_runtime.errors import InvalidInputError
from support.server_names import Names, write_servers

NOWHERE = ClientConfig(urls=("127.0.0.1:1",))


def _run(analyzer: PerfAnalyzer, mode: Mode, value: float, seconds: float) -> LoadResult:
    load = Load(model="m", mode=mode, value=value, seconds=seconds)
    return run_load(analyzer, NOWHERE, Path("in.json"), load)


def test_figures_come_from_the_times_of_each_request(analyzer: PerfAnalyzer) -> None:
    result = _run(analyzer, Mode.CLOSED, 2, seconds=1)
    assert result.requests == 150
    assert result.throughput == 75
    assert result.p50_ms == pytest.approx(75.5)
    assert result.p99_ms == pytest.approx(148.51)
    assert not result.problem


def test_a_failed_load_has_a_problem_and_no_figures(analyzer: PerfAnalyzer) -> None:
    result = _run(analyzer, Mode.OPEN, 0.125, seconds=1)
    assert result.throughput is None
    assert "Failed to maintain" in result.problem


@pytest.mark.parametrize(
    "message",
    [
        "No valid requests recorded within time interval. Please use a larger time window.",
        "failed to find the requested model version",
        "",
    ],
    ids=["no request", "no statistics", "an export without requests"],
)
def test_a_load_that_is_too_short_is_repeated_for_longer(
    analyzer: PerfAnalyzer, message: str
) -> None:
    script = analyzer.binary.read_text().splitlines()
    gives_up = f"print({message!r}); sys.exit(99)" if message else "requests = requests[:0]"
    place = next(i for i, line in enumerate(script) if line.startswith("experiment ="))
    window = 'int(arguments[arguments.index("--measurement-interval") + 1])'
    script.insert(place, f"if {window} < 1000: {gives_up}")
    analyzer.binary.write_text("\n".join(script))
    assert _run(analyzer, Mode.CLOSED, 1, seconds=0.5).throughput == 75
    script[place] = f"if {window} < 10**9: {gives_up}"
    analyzer.binary.write_text("\n".join(script))
    problem = _run(analyzer, Mode.CLOSED, 1, seconds=0.5).problem
    assert problem == (message or "no request was answered in the windows")


def test_perf_analyzer_connects_as_the_clients_settings_say(tmp_path: Path) -> None:
    settings = tmp_path / "client.toml"
    (tmp_path / "token").write_text("a-token-of-the-tests")
    (tmp_path / "token").chmod(0o600)
    settings.write_text(
        f'tls_ca_file = "ca.pem"\ntoken_file = "{tmp_path}/token"\nkill_switch_file = "off"\n'
        'urls = ["elsewhere:1"]\n[metadata]\ntenant = "ads"\n'
    )
    connection = read_connection("host:8001", settings)
    assert connection.kill_switch_file is None  # the switch would stop all calls
    assert analyzer_options(connection) == [
        *("-u", "host:8001", "-i", "grpc", "--ssl-grpc-use-ssl", "true"),
        *("--ssl-grpc-root-certifications-file", str(Path("ca.pem").resolve())),
        *("-H", "triton-grpc-protocol-inference-key:a-token-of-the-tests", "-H", "tenant:ads"),
    ]
    assert analyzer_options(NOWHERE) == ["-u", "127.0.0.1:1", "-i", "grpc"]


def test_a_name_or_file_must_have_one_server(names: Names, tmp_path: Path) -> None:
    names.answers |= {"one.test": ["10.0.0.1"], "two.test": ["10.0.0.1", "10.0.0.2"]}
    # perf_analyzer resolves the name itself, so that TLS checks the name.
    assert read_connection("dns:///one.test:8001", None).urls == ("one.test:8001",)
    listed = write_servers(tmp_path / "servers", ["10.0.0.3:1"])
    assert read_connection(listed, None).urls == ("10.0.0.3:1",)
    expected = r"two\.test:1: found 2 servers \(10\.0\.0\.1:1, 10\.0\.0\.2:1\), expected 1"
    with pytest.raises(InvalidInputError, match=expected):
        read_connection("dns:///two.test:1", None)
