"""llama.cpp's own server with the adapter over its base, as GGUF files that were exported, or are for the duration."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from raylora.run.elsewhere import find_python
from raylora.run.export import merge_to
from raylora.run.llamacpp.gguf import ADAPTER, BASE, MODEL, VARIABLE, write_gguf
from raylora.run.serve import listening
from raylora.run.serve.children import serve_child
from raylora.run.serve.listening import Address
from raylora.run.subject import Subject

_SERVE = Path(__file__).parents[1] / "llamacpp" / "inside" / "serve.py"
# Types of a checkpoint -> those of GGUF files.
_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def exported(folder: Path) -> list[Path]:
    """The files of a folder that `raylora export --format gguf` wrote, the model's first; none of another folder."""
    if (folder / MODEL).is_file():
        return [folder / MODEL]
    files = [folder / BASE, folder / ADAPTER]
    return files if all(file.is_file() for file in files) else []


def run(subject: Subject, address: Address, dtype: str, say: Callable[[str], None]) -> None:
    """Write the files and serve them until Ctrl-C. Errors: see `run_files`, and `gguf.write_gguf`."""
    python = server()
    with tempfile.TemporaryDirectory(prefix="raylora-serve-") as work:
        say(f"writing {subject.name} as GGUF files")
        files = write_gguf(
            Path(work),
            subject.folder,
            subject.adapter,
            lambda target: merge_to(target, subject.folder, subject.adapter, tokenizer=subject.tokenizer),
            kind=_TYPES.get(dtype),
            say=say,
        )
        _run(python, files, address)


def run_files(files: Sequence[Path], address: Address) -> None:
    """Serve files until Ctrl-C.

    Raises:
        UserError: xllamacpp is not there, or the address cannot be had.
        RunFailed: the server ended by itself.
    """
    _run(server(), files, address)


def server() -> str:
    """The Python that has llama.cpp's server. Raises UserError where there is none."""
    return find_python("xllamacpp", VARIABLE, "--engine", "pip install --no-deps xllamacpp")


def _run(python: str, files: Sequence[Path], address: Address) -> None:
    port = listening.free_port(address.host, address.port)
    told = {
        "model": str(files[0].resolve()),
        "adapter": str(files[1].resolve()) if len(files) > 1 else None,
        "name": address.name,
        "host": address.host,
        "port": port,
        "key": address.key,
    }
    serve_child([python, str(_SERVE)], address, port, given=json.dumps(told))
