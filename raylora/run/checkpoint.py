"""Whether a model's folder holds what can be tuned, told before a host loads it. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from raylora.errors import UserError

# How a file begins that Git LFS has not fetched.
_POINTER = b"version https://git-lfs"
# Families that read in both directions.
_ENCODERS = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "eurobert", "ibert"}
    | {"longformer", "mobilebert", "modernbert", "mpnet", "nomic_bert", "roberta", "roberta-prelayernorm", "roformer"}
    | {"squeezebert", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)
# Quantisation methods of checkpoints, and the package that reads each.
_READERS = {"bitsandbytes": "bitsandbytes", "gptq": "gptqmodel", "awq": "gptqmodel"}


def check_checkpoint(name: str, folder: Path, head: str = "language", quantization: str = "none") -> None:
    """Refuses what no trial could be trained on.

    Args:
        name: as the spec has it, for messages.
        folder: where the model lies.
        head: `task.head` of the spec.
        quantization: of the spec.

    Raises:
        UserError: one line: an encoder-decoder, a quantised checkpoint that is to be quantised again or whose reader is
            not installed, a file that is a Git LFS pointer, a tokenizer with more tokens than the embedding has rows.
    """

    def refused(told: str, allowed: object = None) -> UserError:
        return UserError(f"model = {name!r}: {told}", field="model", value=name, allowed=allowed)

    for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.json")) + sorted(folder.glob("*.bin")):
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise refused(f"{file} is a Git LFS pointer, not the file itself; run `git lfs pull` there")
    config = _read(folder / "config.json")
    if config.get("is_encoder_decoder"):
        kind = config.get("model_type", "an unknown type")
        raise refused(
            f"{kind} is an encoder-decoder model; allowed: a causal language model", "a causal language model"
        )
    if head == "language" and config.get("model_type") in _ENCODERS and not config.get("is_decoder"):
        raise refused(
            f"{config['model_type']} is an encoder, which writes no text; allowed: task.head = classifier, or a causal "
            "language model",
            "a causal language model",
        )
    method = (config.get("quantization_config") or {}).get("quant_method")
    if method is not None and quantization != "none":
        raise refused(
            f"its weights are quantised already ({method}), with quantization = {quantization!r}; set quantization to "
            "none, or give the model as it was before"
        )
    reader = _READERS.get(str(method))
    if reader is not None and importlib.util.find_spec(reader) is None:
        raise refused(
            f"its weights are quantised with {method}, and {reader} is not installed; pip install {reader}, "
            "or give the model as it was before"
        )
    rows, tokens = config.get("vocab_size"), _largest_token(folder)
    if isinstance(rows, int) and tokens is not None and tokens >= rows:
        raise refused(
            f"its tokenizer has token {tokens}, its embedding only {rows} rows; give the tokenizer that "
            "belongs to it, or resize the embedding (resize_token_embeddings)"
        )


def _largest_token(folder: Path) -> int | None:
    """The largest token id of a fast tokenizer; None where it cannot be told from its file."""
    told = _read(folder / "tokenizer.json")
    vocabulary = (told.get("model") or {}).get("vocab")
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else range(len(vocabulary or []))
    ids = [*ids, *(token["id"] for token in told.get("added_tokens") or [] if isinstance(token.get("id"), int))]
    return max((number for number in ids if isinstance(number, int)), default=None)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
