"""Checkpoints as models of transformers: no pickle, no remote code."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from adprior_build.checkpoints.checkpoint import Checkpoint
from adprior_runtime.cpu_count import available_processors
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.template import PromptTemplate


def set_torch_threads(threads: int = 0) -> None:
    """Set torch's number of threads; 0: all that the process and ``OMP_NUM_THREADS`` allow."""
    torch.set_num_threads(threads or min(torch.get_num_threads(), available_processors()))


def build_model(checkpoint: Checkpoint, source: Path) -> Any:
    """Return a checkpoint's model in float32, ready for evaluation; ``source`` is for errors.

    Raises:
        InvalidInputError: Its configuration is unknown, or a weight is missing, left over or
            misshapen.
    """
    try:
        with no_init_weights():
            config = AutoConfig.for_model(**checkpoint.config)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInputError(f"{source}: {' '.join(str(error).split())[:300]}") from error
    model.tie_weights()
    parameters = dict(model.named_parameters())
    if wrong := sorted(parameters.keys() ^ checkpoint.weights.keys()):
        found = "lacks" if wrong[0] in parameters else "has the unknown weight"
        raise InvalidInputError(f"{source}: {found} {wrong[0]}, as a {config.model_type} model")
    with torch.no_grad():
        for name, parameter in parameters.items():
            values = checkpoint.weights[name]
            if values.shape != tuple(parameter.shape):
                raise InvalidInputError(
                    f"{source}: {name} has the shape {values.shape}; its configuration asks for "
                    f"{tuple(parameter.shape)}"
                )
            parameter.copy_(torch.from_numpy(values))
    return model.eval()


def compile_layers(model: Any) -> None:
    """Compile each layer of a model, in place, at its first use; sequences may have any length.

    torch then joins the operations between the matrix products, which take most of the time of a
    small model on a CPU.
    """
    decoder = model.get_decoder()
    for module in (*decoder.layers, decoder.norm):
        module.compile(dynamic=True)


def next_token_logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return float32 logits [..., vocabulary] from last hidden states [..., hidden]."""
    logits: torch.Tensor = model.get_output_embeddings()(hidden).float()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def open_window(model: Any, longest: int) -> None:
    """Widen a sliding attention window to all positions, as serving attends to all of them.

    Sequences within the window give the same result either way; longer ones are refused.

    Args:
        model: A causal language model; only its configuration changes.
        longest: Number of tokens of the longest prompt with its longest name.

    Raises:
        InvalidInputError: The window is shorter.
    """
    window = _window(model.config)
    if window is None:
        return
    if longest > window:
        raise InvalidInputError(
            f"prompts and names of up to {longest} tokens do not fit the checkpoint's attention "
            f"window of {window}; give a --template with a smaller max_prompt_tokens"
        )
    config = model.config.get_text_config()
    config.sliding_window = config.max_position_embeddings


def _window(config: Any) -> int | None:
    window: int | None = getattr(config.get_text_config(), "sliding_window", None)
    return window


def plain_template(source: Path, config: Any, tokenizer: Tokenizer) -> PromptTemplate:
    """Return a compact template; names end with the model's end-of-text token.

    A prompt is the profile's values in one line, then a line for each day with the days since the
    day before it, and for each event the name and a line for its category and text.
    """
    end = config.get_text_config().eos_token_id
    end = end[0] if isinstance(end, list) else end
    terminator = None if end is None else tokenizer.id_to_token(end)
    if terminator is None:
        raise InvalidInputError(
            f"{source}: the checkpoint names no end-of-text token; give a --template"
        )
    longest = config.get_text_config().max_position_embeddings // 2
    if (window := _window(config)) is not None:
        longest = min(longest, window * 3 // 4)
    return PromptTemplate(
        terminator=terminator,
        max_prompt_tokens=min(512, longest),
        head=tuple(_opening(tokenizer)),
        profile=("{value}; ",),
        event=("+{gap}\n", "{advertiser}{end}", "{category_words}\n", "{text}\n"),
        tail=("+{gap}\n",),
    )


def _opening(tokenizer: Tokenizer) -> list[str]:
    """Return the special tokens that the tokenizer puts before every text, as template pieces.

    The model never saw a text without them. A tokenizer that puts none there gives the end-of-text
    token, which separated the texts that the model was trained on. A template cannot contain a
    token with a brace.
    """
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokens: list[str] = tokenizer.encode("a", add_special_tokens=True).tokens
    opening = list(takewhile(special.__contains__, tokens))
    return [token for token in opening if not {"{", "}"} & set(token)] or ["{end}"]
