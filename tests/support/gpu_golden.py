"""Golden files of commands: three models on two GPUs, with and without fp8."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from adprior_build.tensorrt_llm.commands import Paths, Step, engine_steps
from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.memory import describe_fit, largest_concurrency
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_build.tensorrt_llm.sizes import EngineSizes

HERE: Final = Path(__file__).parent
MODELS: Final = HERE / "gpu_models"
COMMANDS: Final = HERE / "gpu_commands"
DEPLOYMENTS: Final = HERE.parents[1] / "deploy"
NAME_TOKENS: Final = 8

CASES: Final = [
    (model, deployment)
    for model in ("qwen3-0.6b", "qwen3-1.7b", "llama-3-8b")
    for deployment in ("l4", "l4-fp8", "h100", "h100-fp8")
]


def steps_of(model: str, deployment_name: str) -> list[Step]:
    """Return the steps of a case, with fixed paths."""
    deployment = Deployment.load(DEPLOYMENTS / f"{deployment_name}.toml")
    shape = ModelShape.read(MODELS / model)
    sizes = EngineSizes.of(deployment, NAME_TOKENS)
    paths = Paths.below(Path("/build"), Path("/repository/llm_engine/1"))
    return engine_steps(deployment, shape, sizes, paths)


def render(model: str, deployment_name: str) -> str:
    """Return a golden file's text: the estimate as a comment, then the commands."""
    deployment = Deployment.load(DEPLOYMENTS / f"{deployment_name}.toml")
    told = describe_fit(deployment, ModelShape.read(MODELS / model), NAME_TOKENS)
    comment = "".join(f"# {line}\n" for line in told.splitlines())
    commands = "".join(
        f"\n# {step.name}\n{step.to_shell()}\n" for step in steps_of(model, deployment_name)
    )
    return f"# {model} on {deployment_name}\n{comment}{commands}"


def sizing() -> str:
    """Return docs/gpu.md's sizing: one model on one GPU, as the command prints it."""
    deployment = Deployment.load(DEPLOYMENTS / "l4.toml")
    shape = ModelShape.read(MODELS / "qwen3-1.7b")
    return f"```\n{describe_fit(deployment, shape, NAME_TOKENS)}\n```\n"


def rooms() -> str:
    """Return docs/gpu.md's table of users at once: every model on every deployment."""
    lines = [
        "| model | L4 | L4, fp8 | L40S | H100 | H100, fp8 |",
        "|---|---|---|---|---|---|",
    ]
    for model in ("qwen3-0.6b", "qwen3-1.7b", "llama-3-8b"):
        shape = ModelShape.read(MODELS / model)
        found = [
            largest_concurrency(Deployment.load(DEPLOYMENTS / f"{name}.toml"), shape, NAME_TOKENS)
            for name in ("l4", "l4-fp8", "l40s", "h100", "h100-fp8")
        ]
        lines.append(f"| {model} | {' | '.join(map(str, found))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for each in CASES:
        (COMMANDS / f"{each[0]}-{each[1]}.sh").write_text(render(*each), encoding="utf-8")
