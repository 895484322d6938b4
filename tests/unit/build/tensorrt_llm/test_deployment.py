from __future__ import annotations

from pathlib import Path

import pytest

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.engine_sizes import EngineSizes
from adprior_build.tensorrt_llm.memory import describe_fit
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.template import PromptTemplate
from support.gpu_golden import MODELS, NAME_TOKENS
from support.paths import DEMO, ROOT

EXAMPLES = sorted((ROOT / "deploy").glob("*.toml"))
TEXT = 'gpu = "L4"\nmemory_gib = 22.4\nprompt_tokens = 256\nbeam_width = 32\nconcurrency = 8\n'


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_files_of_deploy_are_valid(path: Path) -> None:
    deployment = Deployment.load(path)
    assert path.stem.removeprefix("demo-").startswith(deployment.gpu.lower())
    assert path.stem.endswith("fp8") == (deployment.quantisation == "fp8")


def test_demo_l4_fits_the_shipped_prompts() -> None:
    deployment = Deployment.load(EXAMPLES[0].with_name("demo-l4.toml"))
    template = PromptTemplate.load(DEMO / "template.json")
    assert deployment.prompt_tokens == template.max_prompt_tokens


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_gemma_3_has_deployments_that_fit_its_window(path: Path) -> None:
    shape = ModelShape.read(MODELS / "gemma-3-270m")
    assert shape.window == 512
    deployment = Deployment.load(path)
    sizes = EngineSizes.of(deployment, NAME_TOKENS)
    if path.stem not in {"demo-l4", "l4-gemma3"}:
        with pytest.raises(InvalidInputError, match="the model's attention window of 512; lower"):
            sizes.check_fits_model(shape)
        return
    sizes.check_fits_model(shape)
    shape.check_dtype(deployment.dtype)
    assert "users x " in describe_fit(deployment, shape, NAME_TOKENS)


def test_the_deployment_of_gemma_3_leaves_64_tokens_for_a_name() -> None:
    shape = ModelShape.read(MODELS / "gemma-3-270m")
    deployment = Deployment.load(ROOT / "deploy" / "l4-gemma3.toml")
    EngineSizes.of(deployment, 64).check_fits_model(shape)
    with pytest.raises(InvalidInputError, match="names of 65 tokens do not fit"):
        EngineSizes.of(deployment, 65).check_fits_model(shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gpu, memory_gib, prompt_tokens, beam_width, concurrency missing"),
        (TEXT + "beams = 3\n", "unknown beams; expected gpu, memory_gib"),
        (TEXT.replace('"L4"', '"L5"'), "gpu is 'L5', expected one of A10"),
        (TEXT.replace("22.4", '"22"'), "memory_gib is '22', expected a number"),
        (TEXT.replace("22.4", "nan"), "memory_gib is nan, expected 1 to 1024"),
        (TEXT.replace("256", "256.5"), "prompt_tokens is 256.5, expected a whole number"),
        (TEXT.replace("256", "true"), "prompt_tokens is True, expected a whole number"),
        (TEXT.replace("256", "31"), "prompt_tokens is 31, expected 32 to"),
        (TEXT.replace("32", "1"), "beam_width is 1, expected 2 to 127"),
        (TEXT.replace("32", "128"), "beam_width is 128, expected 2 to 127"),
        (TEXT.replace("= 8", "= 0"), "concurrency is 0, expected 1 to 4096"),
        (TEXT + 'quantisation = "int4"\n', "quantisation is 'int4', expected none or fp8"),
        (TEXT + 'dtype = "float32"\n', "dtype is 'float32', expected bfloat16 or float16"),
        (TEXT + 'repository_path = "models"\n', "repository_path is 'models', expected a path"),
        (TEXT + 'repository_path = "/a\\nb"\n', r"repository_path is '/a\\nb', expected a path"),
        (
            TEXT.replace('"L4"', '"A100"') + 'quantisation = "fp8"\n',
            r"fp8, which A100 \(compute capability 8.0\) does not support",
        ),
        ("gpu = ", "not a deployment"),
    ],
)
def test_a_wrong_deployment_is_refused_with_the_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "deployment.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        Deployment.load(path)
    assert "deployment.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"gone\.toml: not a deployment"):
        Deployment.load(tmp_path / "gone.toml")
