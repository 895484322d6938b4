"""A checkpoint of the Gemma 3 family with random weights, written without torch in a second.

The catalogue has advertisers of the demo's users, and made-up ones with several tokens each.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

_BRANDS: Final = (
    "Purina", "KONG", "Milk-Bone", "Nylabone", "GREENIES", "Blue Buffalo", "Chuckit!",
    "Nordic Ware", "King Arthur", "Wilton", "Ghirardelli", "OXO Good Grips", "KitchenAid",
    "Graco", "Dr. Brown's", "Philips Avent", "Pampers", "WaterWipes", "Carter's", "Huggies",
    "Skip Hop", "Gerber",
)  # fmt: skip
_FIRST_WORDS: Final = (
    "Amber", "Birch", "Cobalt", "Dune", "Ember", "Fjord", "Gable", "Heron", "Isle", "Juniper",
    "Kite", "Lumen", "Moss", "Nori", "Opal", "Pine", "Quill", "Rook", "Sable", "Tern",
)  # fmt: skip
_SECOND_WORDS: Final = (
    "", "& Co", "Bakery", "Books", "Coffee", "Garden", "Home", "Kids", "Kitchen", "Lab", "Music",
    "Outdoor", "Pets", "Shoes", "Sport", "Studio", "Supply", "Tea", "Toys", "Works",
)  # fmt: skip
_ALIASED_EVERY: Final = 8
_SPECIAL: Final = ["<pad>", "<eos>", "<bos>", "<unk>"]
_BYTES: Final = [f"<0x{byte:02X}>" for byte in range(256)]
_PIECES: Final = 440
"""Other tokens: few enough that most names need two."""
_PROMPT: Final = {
    "terminator": "\n",
    "max_prompt_tokens": 320,
    "head": ["<bos>"],
    "profile": ["{value}; "],
    "event": ["{gap} days\n", "{advertiser}{end}", "{category}\n"],
    "tail": ["{gap} days\n"],
}
_TRAINING: Final = {
    "command": "adprior train --from random --output checkpoint",
    "inputs": {"events": {"file": "events.parquet", "sha256": "5eed" * 16}},
    "split": {"cut": "2022-07-01", "test_share": 0.2, "salt": "adprior", "validation_share": 0.15},
    "profile_keys": ["age", "gender", "home_state", "household_size"],
}
_CONFIG: Final[dict[str, Any]] = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 48,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 1024,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 16,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    },
    "sliding_window": 1024,  # all positions, as training leaves it
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": len(_SPECIAL) + len(_BYTES) + _PIECES,
}


def write_tiny_checkpoint(directory: Path) -> None:
    """Write the files of a checkpoint of `adprior train` into a new directory."""
    directory.mkdir(parents=True)
    names = _names()
    tokenizer = _train_tokenizer(names)
    assert tokenizer.get_vocab_size() == _CONFIG["vocab_size"]
    tokenizer.save(str(directory / "tokenizer.json"))
    save_file(_weights(tokenizer, names), directory / "model.safetensors", {"format": "pt"})
    for file, document in (
        ("config.json", _CONFIG),
        ("prompt.json", _PROMPT),
        ("training.json", _TRAINING),
    ):
        (directory / file).write_text(json.dumps(document, indent=2), encoding="utf-8")
    ids = list(range(1, len(names) + 1))
    aliases = [f"{name} Inc" if row % _ALIASED_EVERY == 0 else "" for row, name in enumerate(names)]
    catalogue = {"advertiser_id": ids, "name": names, "aliases": aliases}
    pq.write_table(pa.table(catalogue), directory / "catalogue.parquet")
    popularity = {"advertiser_id": ids, "events": [2000 // each for each in ids]}
    pq.write_table(pa.table(popularity), directory / "popularity.parquet")


def _names() -> list[str]:
    made_up = [f"{a} {b}".strip() for b, a in itertools.product(_SECOND_WORDS, _FIRST_WORDS)]
    return [*_BRANDS, *made_up]


def _train_tokenizer(names: Sequence[str]) -> Tokenizer:
    """Return a tokenizer like Gemma's: spaces as ``▁``, unknown characters as bytes."""
    trainer = trainers.BpeTrainer(
        vocab_size=len(_SPECIAL) + _PIECES, special_tokens=_SPECIAL, show_progress=False
    )
    trained = _tokenizer_of(models.BPE())
    characters = [*map(chr, range(32, 127)), "\n"]
    trained.train_from_iterator([*names, *characters, "0 days", "PET_FOOD", "years"], trainer)
    document = json.loads(trained.to_str())["model"]
    pieces = sorted(document["vocab"], key=document["vocab"].__getitem__)
    ordered = [*_SPECIAL, *_BYTES, *pieces[len(_SPECIAL) :]]
    tokenizer = _tokenizer_of(
        models.BPE(
            vocab={piece: token for token, piece in enumerate(ordered)},
            merges=[tuple(merge) for merge in document["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.add_special_tokens(_SPECIAL)
    return tokenizer


def _tokenizer_of(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("\n"), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


# --- weights --------------------------------------------------------------------------------------
# Random weights, but for the first columns of the embedding, the roles: what a token is (it begins,
# continues or ends a name) and what comes after it. The last layer's MLP moves the latter to the
# columns of the former, which the output layer, the same embedding, compares with every token's.
# So the model expects names, and random weights choose among them.
_CONSTANT: Final = 0
_IS: Final = slice(1, 4)
_NEXT: Final = slice(4, 7)
_BEGINS, _CONTINUES, _ENDS = range(3)


def _weights(tokenizer: Tokenizer, names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(5)
    width, inner, head = (
        _CONFIG[name] for name in ("hidden_size", "intermediate_size", "head_dim")
    )
    queries, keys = (
        head * _CONFIG[name] for name in ("num_attention_heads", "num_key_value_heads")
    )
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
        "pre_feedforward_layernorm": (width,),
        "post_feedforward_layernorm": (width,),
    }
    embedding = random.normal(0, 0.15, (_CONFIG["vocab_size"], width))
    embedding[:, : _NEXT.stop] = _roles(tokenizer, names)
    weights = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": np.full(width, 3.0),  # a norm multiplies by 1 + its weight
    }
    for layer in range(_CONFIG["num_hidden_layers"]):
        for name, shape in shapes.items():
            spread = 0.1 if len(shape) == 1 else shape[1] ** -0.5
            values = random.normal(0, spread, shape)
            if name in {"self_attn.o_proj", "mlp.down_proj"}:
                values[: _NEXT.stop] = 0.0  # no layer writes over the roles
            weights[f"model.layers.{layer}.{name}.weight"] = values
    last = f"model.layers.{_CONFIG['num_hidden_layers'] - 1}"
    gate, up, down = (weights[f"{last}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
    gate[:], up[:], down[:] = 0.0, 0.0, 0.0
    gate[:3, _CONSTANT] = 3.0
    up[:3, _NEXT] = np.eye(3)
    down[_IS, :3] = np.eye(3)
    weights[f"{last}.post_feedforward_layernorm.weight"][:] = 3.0
    return {name: values.astype(np.float32) for name, values in weights.items()}


def _roles(tokenizer: Tokenizer, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return each token's role columns: float64 [vocabulary, 7]."""
    roles = np.zeros((_CONFIG["vocab_size"], _NEXT.stop))
    roles[:, _CONSTANT] = 0.3
    end = tokenizer.token_to_id("\n")
    roles[end, [_IS.start + _ENDS, _NEXT.start + _BEGINS]] = 1.0
    for name in names:
        tokens = tokenizer.encode(name, add_special_tokens=False).ids
        roles[tokens[0], _IS.start + _BEGINS] = 1.0
        roles[tokens[1:], _IS.start + _CONTINUES] = 1.0
        roles[tokens[:-1], _NEXT.start + _CONTINUES] = 1.0
        roles[tokens[-1], _NEXT.start + _ENDS] = 1.0
    return roles
