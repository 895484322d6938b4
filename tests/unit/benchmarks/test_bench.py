from __future__ import annotations

import re
import subprocess
import sys

import pytest

from adprior_runtime.cli import main

BENCHMARKS = [
    "bulk",
    "clients",
    "drift",
    "public-data",
    "quality",
    "search",
    "server",
    "simulate-log",
    "stored",
]


def test_the_list_of_benchmarks_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    listed = re.findall(r"^  ([a-z-]+) +(.*)$", capsys.readouterr().out, re.MULTILINE)
    purposes = {name: purpose for name, purpose in listed if name in BENCHMARKS}
    assert list(purposes) == BENCHMARKS
    assert all(purposes.values())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", name, "--help"])
    assert caught.value.code == 0
    assert re.search(rf"^ +adprior bench {name} .*--", capsys.readouterr().out, re.MULTILINE)


def test_a_missing_benchmark_is_the_only_missing_argument(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench"])
    assert caught.value.code == 2
    assert "the following arguments are required: BENCHMARK (see" in capsys.readouterr().err


def test_one_benchmark_imports_no_other() -> None:
    code = (
        "import sys; from adprior_runtime.cli import main\n"
        "try: main(['bench', 'clients', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('adprior_bench.commands.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['adprior_bench.commands.clients']"
