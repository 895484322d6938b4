"""A minimal data set, and checkpoints and bundles made from it."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from adprior_runtime.cli import main
from support.data_set import InputFiles

NAMES = ["Acme", "Acme Pets", "Birch & Co", "Dune Coffee", "麦穗", "365"]
IDS = [101, 102, 103, 104, 105, 106]
CUT = date(2024, 2, 1)

SIZE = (
    "hidden_size = 8\nintermediate_size = 16\nlayers = 1\nattention_heads = 2\n"
    "key_value_heads = 1\nvocabulary_size = 270\nmax_prompt_tokens = 64\n"
)


class SmallData(InputFiles):
    """Input files of the commands; a test may overwrite them."""

    @classmethod
    def write(cls, directory: Path) -> SmallData:
        """Write 16 users of 6 events each, half of the days before the cut."""
        data = cls(directory=directory)
        data.write_events(invented_events())
        data.write_profiles(16)
        data.write_catalogue({"advertiser_id": IDS, "name": NAMES})
        data.write_settings(SIZE)
        return data

    def write_catalogue(self, columns: dict[str, Any]) -> None:
        pa.parquet.write_table(pa.table(columns), self.path("catalogue.parquet"))

    def train(self, output: Path, *options: str, start: Path | None = None) -> int:
        """Run ``adprior train`` for one epoch, from ``start`` or from scratch."""
        arguments = ["train", *self.log_options(), "--output", str(output)]
        arguments += ["--catalogue", str(self.path("catalogue.parquet"))]
        arguments += ["--from", str(start)] if start else ["--size", str(self.path("size.toml"))]
        arguments += ["--cut", CUT.isoformat(), "--test-share", "0.4", "--epochs", "1"]
        return main([*arguments, "--threads", "1", *options])

    def save_bundle(self, place: Path, *options: str) -> Path:
        """Train in ``place`` with ``options``; return the bundle made there."""
        assert self.train(place / "checkpoint", *options) == 0
        made = ["--checkpoint", str(place / "checkpoint"), "--save-bundle", str(place / "bundle")]
        assert build(place / "repository", *made) == 0
        return place / "bundle"


def invented_events() -> list[dict[str, Any]]:
    """Return events in which users alternate between their favourite and a common advertiser."""
    return [
        {
            "who": f"user-{user}",
            "day": CUT + timedelta(days=10 * step - 30 + user % 3),
            "brand": NAMES[user % len(NAMES)] if step % 2 else NAMES[0],
            "kind": "FOOD" if user % 2 else None,
        }
        for user in range(16)
        for step in range(6)
    ]


def build(repository: Path, *options: str) -> int:
    """Run ``adprior build`` with a small forecast and search."""
    return main(["build", "--output", str(repository), "--forecast-k", "3", *options])


def run_without_torch(*arguments: str | Path) -> None:
    """Run ``adprior`` in a process that cannot import torch and transformers."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from adprior_runtime.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)


def save_qwen(directory: Path) -> None:
    """Write a random Qwen2 and a tokenizer, as transformers does, without a template."""
    save_random(directory, Qwen2Config)


def save_random(directory: Path, family: Any, **settings: Any) -> None:
    """Write a minimal random model of a family and a tokenizer, without a template.

    ``family`` is a configuration class of transformers, made with ``settings``.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["advertiser", "purchase", *NAMES], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(
        directory
    )
    shape: dict[str, Any] = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    AutoModelForCausalLM.from_config(family(**(shape | settings))).save_pretrained(directory)
