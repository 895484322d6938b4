from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from adprior_runtime import __version__, cli
from adprior_runtime.cli import main
from support.processes import COMMAND, await_true, run

COMMANDS = [
    "bench",
    "build",
    "bulk",
    "catalogue",
    "explore",
    "fit-head",
    "inspect",
    "predict",
    "publish",
    "pull",
    "push",
    "rank",
    "rollout",
    "serve",
    "train",
    "user",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert re.search(rf"^ +adprior {command} .*--", shown, re.MULTILINE)


def test_the_list_of_commands_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = re.findall(r"^  ([a-z-]+) +(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in listed] == COMMANDS
    assert all(purpose for _, purpose in listed)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"adprior {__version__}\n"


def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    capsys.readouterr()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("PASSIVE", "5")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["serve"]])
def test_commands_that_are_not_registered_are_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda **_: ())
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "adprior's commands are not registered; install adprior again (pip install" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["forecast"]])
def test_no_or_unknown_command_is_bad_input(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "usage: adprior COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--bundle", "nowhere", "--output", "out"], "--bundle nowhere: no such file"),
        (
            ["catalogue", "--events", "e.csv", "--columns", "nowhere.toml", "--output", "o.csv"],
            "nowhere.toml: not a column map",
        ),
        (["serve", "--repository", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"adprior {arguments[0]}: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['pyarrow'] = None\n"
        "from adprior_runtime.cli import main; sys.exit(main(['train', '--help']))"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 2
    assert "needs the package pyarrow: pip install 'adprior[build]'" in done.stderr


def test_a_terminated_command_removes_its_scratch_files(tmp_path: Path) -> None:
    search = ["bench", "search", "--sizes", "100", "--rounds", "1000000", "--peer-rounds", "0"]
    with subprocess.Popen(
        [*COMMAND, *search],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        await_true(lambda: command.poll() is not None or list(tmp_path.glob("adprior-bench-*")))
        assert command.poll() is None
        command.terminate()
        lines = command.communicate()[1].splitlines()
    assert lines[-1] == "adprior bench: terminated"
    assert command.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("adprior-*"))


def test_a_command_is_the_module_of_its_name() -> None:
    for command in entry_points(group="adprior.commands"):
        name = command.name.replace("-", "_")
        if name != "bench":  # its own commands/ folder holds the benchmarks
            assert command.module.endswith(f".commands.{name}")


def test_the_list_of_commands_imports_none() -> None:
    code = (
        "import sys; from adprior_runtime.cli import main; main(['--help'])\n"
        "sys.exit(any(name.partition('.')[0] in {'adprior_build', 'adprior_client', 'numpy'}"
        " for name in sys.modules))"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
