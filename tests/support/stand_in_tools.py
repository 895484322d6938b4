"""Stand-ins for `trtllm-build`, TensorRT-LLM's example scripts and `nvidia-smi`.

The real tools need a GPU. The stand-ins keep their contract: they accept the options that the
tools' sources declare (`gpu_flags/`), exit with argparse's status 2 on others, and `trtllm-build`
writes a `config.json` of the real form. Their results mean nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FLAGS: Final = Path(__file__).parent / "gpu_flags"

_PROGRAM: Final = """#!{python} -I
# A stand-in, see stand_in_tools.py.
import sys
sys.path.insert(0, {here!r})
from support.stand_in_tools import main
sys.exit(main({name!r}, sys.argv[1:], {settings!r}))
"""
_SCRIPTS: Final = (
    "models/core/llama/convert_checkpoint.py",
    "models/core/qwen/convert_checkpoint.py",
    "models/core/gemma/convert_checkpoint.py",
    "quantization/quantize.py",
)


@dataclass(frozen=True, kw_only=True)
class StandIns:
    """A directory of stand-ins, meant to be the only one in PATH.

    Attributes:
        directory: The directory, with programs in ``bin`` and scripts in ``examples``.
        version: Version of TensorRT-LLM; ``none`` for a machine without it.
        gpu: Output of ``nvidia-smi``; None for a machine without it.
        gpu_status: Its exit status.
        failing: Output and exit status of programs or scripts that fail.
        engine: Changes to the engine's ``build_config``.
        without: Programs that are missing.
    """

    directory: Path
    version: str = "1.2.1"
    gpu: str | None = "NVIDIA L4, 23034"
    gpu_status: int = 0
    failing: dict[str, tuple[str, int]] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The value of PATH."""
        return str(self.directory / "bin")

    @property
    def examples(self) -> Path:
        """The value of ``--examples``."""
        return self.directory / "examples"

    @property
    def calls(self) -> list[list[str]]:
        """The command lines that were run, in order."""
        log = self.directory / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def write(self) -> StandIns:
        """Write programs and scripts."""
        (self.directory / "bin").mkdir(parents=True)
        settings = {
            "directory": str(self.directory),
            "version": self.version,
            "gpu": self.gpu,
            "gpu_status": self.gpu_status,
            "failing": self.failing,
            "engine": self.engine,
        }
        names = {"python3", "trtllm-build"} | (set() if self.gpu is None else {"nvidia-smi"})
        for name in names - set(self.without):
            program = self.directory / "bin" / name
            here = str(Path(__file__).parents[1])
            text = _PROGRAM.format(python=sys.executable, here=here, name=name, settings=settings)
            program.write_text(text)
            program.chmod(0o755)
        for script in _SCRIPTS:
            path = self.examples / script
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("# a stand-in's place\n")
        return self


def known_flags(tool: str) -> set[str]:
    """Return the options that a tool's source declares."""
    return set(json.loads((FLAGS / f"{tool}.json").read_text())["flags"])


def tool_of(command: list[str] | tuple[str, ...]) -> str:
    """Return the name of the list of flags for a command line."""
    if command[0] != "python3":
        return command[0]
    script = Path(command[1])
    return script.stem if script.stem == "quantize" else f"{script.stem}-{script.parent.name}"


def main(name: str, arguments: list[str], settings: dict[str, Any]) -> int:
    """Act as the program ``name``."""
    if name == "nvidia-smi":
        print(settings["gpu"])
        return int(settings["gpu_status"])
    if name == "python3" and arguments[0] == "-c":
        print(settings["version"])
        return 0
    with (Path(settings["directory"]) / "calls.jsonl").open("a") as log:
        log.write(json.dumps([name, *arguments]) + "\n")
    options = _parse(tool_of([name, *arguments]), arguments[1:] if name == "python3" else arguments)
    short = Path(arguments[0]).stem if name == "python3" else name
    if short in settings["failing"]:
        text, status = settings["failing"][short]
        print(text)
        return int(status)
    output = Path(options["--output_dir"])
    output.mkdir(parents=True, exist_ok=True)
    if name != "trtllm-build":
        _convert(Path(options["--model_dir"]), output)
    else:
        _compile(Path(options["--checkpoint_dir"]), output, options, settings["engine"])
    return 0


def _parse(tool: str, arguments: list[str]) -> dict[str, str]:
    known, options, name = known_flags(tool), {}, ""
    for word in arguments:
        if word.startswith("--"):
            if word not in known:
                print(f"{tool}: error: unrecognized arguments: {word}", file=sys.stderr)
                sys.exit(2)
            name = word
            options[name] = ""
        else:
            options[name] = word
    return options


def _convert(source: Path, output: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    if not list(source.glob("*.safetensors")) or "rope_parameters" in config:
        sys.exit("stand-in: no weights, or a layout that transformers 4.57 does not know")
    made = {"architecture": config["architectures"][0], "vocab_size": config["vocab_size"]}
    (output / "config.json").write_text(json.dumps(made))


def _compile(source: Path, output: Path, options: dict[str, str], changes: dict[str, Any]) -> None:
    model = json.loads((source / "config.json").read_text())
    sizes = ("max_batch_size", "max_input_len", "max_seq_len", "max_beam_width", "max_num_tokens")
    switches = ("remove_input_padding", "context_fmha", "use_paged_context_fmha")
    build_config: dict[str, Any] = {name: int(options[f"--{name}"]) for name in sizes}
    build_config["kv_cache_type"] = options["--kv_cache_type"].upper()
    build_config["plugin_config"] = {name: options[f"--{name}"] == "enable" for name in switches}
    config = {
        "version": "1.2.1",
        "pretrained_config": model,
        "build_config": build_config | changes,
    }
    (output / "config.json").write_text(json.dumps(config, indent=4))
    (output / "rank0.engine").write_bytes(b"a stand-in's engine")
