"""An engine's directory as ``trtllm-build`` writes it, for the stand-in of the backend."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from adprior_runtime.bundle import ONNX_MODEL_FILE, PROMPT_FILE, TRIE_DIRECTORY, Bundle
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.prompt.template import PromptTemplate

BACKEND = Path(__file__).parent / "tensorrtllm"
"""The directory of the stand-in, for ``TritonServer.start(backends=...)``."""
MOUNT_VARIABLE = "STAND_IN_FOR_MODELS_MOUNT"
"""Names the directory that the stand-in reads in place of the container's ``/models``."""


def add_engine(repository: Path, bundle_directory: Path, **changed: Any) -> Path:
    """Write engine files to ``llm_engine/1``; return that directory.

    ``rank0.engine`` is the bundle's ONNX model, which the stand-in runs. ``config.json`` has keys
    of TensorRT-LLM's ``EngineConfig``; ``changed`` replaces keys of its ``build_config``.
    """
    bundle = Bundle.open(bundle_directory, [PROMPT_FILE])
    prompt = PromptTemplate.load(bundle.path(PROMPT_FILE)).max_prompt_tokens
    names = bundle.manifest.longest_name_tokens
    trie = Trie.load(bundle.directory / TRIE_DIRECTORY)
    directory = repository / "llm_engine" / "1"
    build_config = {
        "max_input_len": prompt,
        "max_seq_len": prompt + names,
        "max_batch_size": 8,
        "max_beam_width": bundle.manifest.beam_width,
        "max_num_tokens": 8192,
        "kv_cache_type": "PAGED",
        "plugin_config": {"use_paged_context_fmha": True, "remove_input_padding": True},
    }
    document = {
        "version": "1.2.1",
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "dtype": "bfloat16",
            "vocab_size": int(trie.child_tokens.max()) + 1,
            "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        },
        "build_config": build_config | changed,
    }
    (directory / "config.json").write_text(json.dumps(document, indent=4))
    engine = directory / "rank0.engine"
    engine.unlink(missing_ok=True)
    os.link(bundle.directory / ONNX_MODEL_FILE, engine)
    return directory
