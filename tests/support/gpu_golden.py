"""Golden files of the commands that build an engine, and the tables of docs/gpu.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.engine_sizes import EngineSizes
from adprior_build.tensorrt_llm.memory import describe_fit, largest_concurrency
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_build.tensorrt_llm.tool_commands import engine_steps
from support.paths import ROOT

HERE: Final = Path(__file__).parent
MODELS: Final = HERE / "gpu_models"
COMMANDS: Final = HERE / "gpu_commands"
NAME_TOKENS: Final = 8

CASES: Final = [("qwen3-0.6b", "l4"), ("llama-3-8b", "h100"), ("qwen3-1.7b", "h100-fp8")]


def load_deployment(name: str) -> Deployment:
    """Return a deployment of ``deploy/``."""
    return Deployment.load(ROOT / "deploy" / f"{name}.toml")


def render(model: str, deployment_name: str) -> str:
    """Return a golden file's text: the estimate as a comment, then the commands."""
    deployment, shape = load_deployment(deployment_name), ModelShape.read(MODELS / model)
    fit = describe_fit(deployment, shape, NAME_TOKENS)
    comment = "".join(f"# {line}\n" for line in fit.splitlines())
    sizes = EngineSizes.of(deployment, NAME_TOKENS)
    steps = engine_steps(
        deployment, shape, sizes, work=Path("/build"), engine=Path("/repository/llm_engine/1")
    )
    commands = "".join(f"\n# {step.name}\n{step.to_shell()}\n" for step in steps)
    return f"# {model} on {deployment_name}\n{comment}{commands}"


def format_sizing() -> str:
    """Return the sizing in docs/gpu.md: one model on one GPU, as the command prints it."""
    shape = ModelShape.read(MODELS / "qwen3-1.7b")
    return f"```\n{describe_fit(load_deployment('l4'), shape, NAME_TOKENS)}\n```\n"


def format_concurrency() -> str:
    """Return the table of concurrent users in docs/gpu.md: every model on every deployment."""
    lines = [
        "| model | L4 | L4, fp8 | L40S | H100 | H100, fp8 |",
        "|---|---|---|---|---|---|",
    ]
    for model in ("qwen3-0.6b", "qwen3-1.7b", "llama-3-8b"):
        shape = ModelShape.read(MODELS / model)
        found = [
            largest_concurrency(load_deployment(name), shape, NAME_TOKENS)
            for name in ("l4", "l4-fp8", "l40s", "h100", "h100-fp8")
        ]
        lines.append(f"| {model} | {' | '.join(map(str, found))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for each in CASES:
        (COMMANDS / f"{each[0]}-{each[1]}.sh").write_text(render(*each), encoding="utf-8")
