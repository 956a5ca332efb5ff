"""What decides the content of tokenised rows, as hashes: the data, what reads it, the tokenizer, and our own code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.data.sources import FileSource
from raylora.data.store import digest

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

    from raylora.data.rows import Source

# Of a task: what has no part in how its rows read. Files count by their content and name, not by where they lie.
_APART = {"train_rows", "test_rows", "max_new_tokens", "path", "_open", "_metric", "default_metrics", "objective"}
_APART |= {"scoring", "own", "metric", "mode", "worst", "notes", "temperature", "stop", "head"}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PACKAGES = ("tokenizers", "transformers", "pyarrow")


def file_hash(path: str | Path) -> bytes:
    """SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


@cache
def _code_hash(files: tuple[str, ...]) -> str:
    versions = [importlib.metadata.version(name) for name in _PACKAGES]
    return digest(*versions, *(Path(file).read_bytes() for file in files))


def code_hash(task: object) -> str:
    """Of the modules that read and tokenise rows, the task's own and the libraries' versions."""
    import trainables.rows

    files = {str(path) for path in Path(__file__).parent.glob("*.py")} | {trainables.rows.__file__}
    for kind in type(task).__mro__[:-1]:
        try:
            files.add(inspect.getfile(kind))
        except (TypeError, OSError):  # made in a shell, or built in
            continue
    return _code_hash(tuple(sorted(file for file in files if os.path.isfile(file))))


def task_hash(task: object) -> str:
    """Of the options of a task that decide how its rows read."""
    options = {name: value for name, value in vars(task).items() if name not in _APART}
    return digest(*(_ADDRESS.sub("", f"{name}={options[name]!r}") for name in sorted(options)))


def files_hash(source: Source, dataset: ray.data.Dataset) -> str | None:
    """Of the content of the files that a split reads, and of how; None where they are not files of this node."""
    files = source.input_files() if isinstance(source, FileSource) else dataset.input_files()
    if not files or not all(os.path.isfile(file) for file in files):
        return None
    how = source.identity() if isinstance(source, FileSource) else ""
    return digest(how, *(part for file in files for part in (os.path.basename(file), file_hash(file))))


def table_hash(table: pa.Table) -> str:
    """Of the content of a table in memory."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return digest(sink.getvalue())


def tokenizer_hash(files: Mapping[str, bytes]) -> str:
    """Of the files of a tokenizer, by name."""
    return digest(*(part for name in sorted(files) for part in (name, files[name])))


def blocks_hash(blocks: list[Any]) -> str:
    """Of rows that were read from a place whose content cannot be told beforehand."""
    return digest(*(file_hash(block) for block in blocks))
