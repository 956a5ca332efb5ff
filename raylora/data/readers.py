"""Files to raw rows: one reader for each format, every row with the line or number that it has in its file.

A raw row is a mapping of column names to what the file holds: text stays text (a date is no timestamp, `007` no
number), numbers keep the spelling of JSON Lines and CSV. What cannot be read is no exception but a row of its own: the
text of its problem (see `raylora.data.problems`).
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from raylora.data.problems import BROKEN
from raylora.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

Raw = Mapping[str, Any]
Numbered = tuple[int, Raw | str]
T = TypeVar("T")

FORMATS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".arrow": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz", ".lz4": "lz4"}
_BYTES_PER_PART = 16 * 2**20
_ROWS_PER_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one file that one task reads.

    Attributes:
        file: path or URL.
        format, compression: values of `FORMATS` and `COMPRESSIONS`.
        start, end: bytes of JSON Lines, row groups of Parquet; `end` None for all that follows.
        first: number of the first line or row, from 1.
        rows: how many rows it has, where that is known.
        chosen: positions, ascending, of the rows to take; None for all.
    """

    file: str
    format: str
    compression: str | None = None
    start: int = 0
    end: int | None = None
    first: int = 1
    rows: int | None = None
    chosen: np.ndarray | None = None


def format_of(file: str) -> tuple[str, str | None] | None:
    """Format and compression by the name of a file, `train.jsonl.gz`; None for a name that is not read."""
    suffixes = [suffix.lower() for suffix in Path(file.partition("?")[0]).suffixes[-2:]]
    if not suffixes:
        return None
    compression = COMPRESSIONS.get(suffixes[-1])
    suffix = suffixes[-1] if compression is None else suffixes[-2] if len(suffixes) > 1 else ""
    found = FORMATS.get(suffix)
    return None if found is None else (found, compression)


def allowed_suffixes() -> str:
    """For messages."""
    return f"{', '.join(FORMATS)}, also compressed ({', '.join(COMPRESSIONS)})"


# --- opening ---


def is_url(path: str) -> bool:
    """Whether this names a place by its scheme, such as `s3://bucket/train.jsonl`."""
    return "://" in path


def _open_plain(file: str) -> IO[bytes]:
    if not is_url(file):
        return open(file, "rb")
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(file)
    except ValueError:  # a scheme that Arrow does not know, such as https
        import fsspec

        return cast(IO[bytes], fsspec.open(file, "rb").open())
    return cast(IO[bytes], io.BufferedReader(system.open_input_file(path)))


def open_bytes(file: str, compression: str | None) -> IO[bytes]:
    """The decompressed content of a file or URL as a binary stream."""
    import pyarrow as pa

    stream = _open_plain(file)
    if compression == "gzip":
        return cast(IO[bytes], gzip.open(stream))
    if compression == "bz2":
        return cast(IO[bytes], bz2.open(stream))
    if compression == "xz":
        return cast(IO[bytes], lzma.open(stream))
    if compression is not None:
        return cast(IO[bytes], io.BufferedReader(pa.CompressedInputStream(stream, compression)))
    return stream


_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def _encoding(head: bytes) -> str:
    """By the byte order mark; UTF-8 without one."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")


def _text(file: str, compression: str | None, newline: str | None) -> IO[str]:
    """Bytes that are no UTF-8 become lone surrogates, which `_not_unicode` finds again."""
    stream = io.BufferedReader(cast(Any, open_bytes(file, compression)))
    encoding = _encoding(stream.peek(4)[:4])
    return io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline=newline)


def _unicode(line: str | bytes) -> str:
    """Raises UnicodeError for what is no UTF-8."""
    if isinstance(line, bytes):
        return line.decode()
    line.encode()
    return line


def _not_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


_NO_UTF8 = f"{BROKEN}: not UTF-8; save the file as UTF-8"


# --- planning ---


def plan(file: str, *, count: bool = False) -> list[Part]:
    """The parts of a file, in order.

    Args:
        count: every part says how many rows it has, which takes a look at all of a file whose format does not tell.

    Raises:
        UserError: a name of no known format, or a file that cannot be read.
    """
    known = format_of(file)
    if known is None:
        raise UserError.at("task.path", f"{file!r} must end in one of {allowed_suffixes()}", value=file)
    whole = Part(file, *known)
    try:
        if whole.format == "jsonl" and whole.compression is None and not is_url(file):
            with open(file, "rb") as stream:
                marked = _encoding(stream.read(4)) != "utf-8-sig"
            if not marked:
                return _line_parts(whole)
        if whole.format == "parquet":
            return _row_group_parts(whole)
        if not count:
            return [whole]
        return [replace(whole, rows=sum(1 for _ in read(whole)))]
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise _unreadable(file, error) from error


def _line_parts(whole: Part) -> list[Part]:
    parts, at, line = [], 0, 1
    with open(whole.file, "rb") as stream:
        while lines := stream.readlines(_BYTES_PER_PART):
            size = sum(map(len, lines))
            rows = sum(1 for text in lines if text.strip())
            parts.append(replace(whole, start=at, end=at + size, first=line, rows=rows))
            at, line = at + size, line + len(lines)
    return parts or [replace(whole, end=0, rows=0)]


def _row_group_parts(whole: Part) -> list[Part]:
    import pyarrow as pa

    try:
        meta = _parquet(whole.file).metadata
    except pa.ArrowException as error:
        raise _unreadable(whole.file, error) from error
    parts, begin, size, rows, first = [], 0, 0, 0, 1
    for group in range(meta.num_row_groups):
        size += meta.row_group(group).total_byte_size
        rows += meta.row_group(group).num_rows
        if size >= _BYTES_PER_PART or group == meta.num_row_groups - 1:
            parts.append(replace(whole, start=begin, end=group + 1, first=first, rows=rows))
            begin, size, first, rows = group + 1, 0, first + rows, 0
    return parts or [replace(whole, end=0, rows=0)]


def _unreadable(file: str, error: BaseException) -> UserError:
    reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
    return UserError.at("task.path", f"cannot read {file!r}: {reason}", value=file)


# --- reading ---


def reads_in_part(file: str) -> bool:
    """Whether the first rows of a file can be had for little: not of a large one whose format is read whole."""
    known = format_of(file)
    whole = known is not None and (known[0] == "json" or (known[0] == "arrow" and known[1] is not None))
    return not whole or os.path.getsize(file) <= _BYTES_PER_PART


def read(part: Part) -> Iterator[Numbered]:
    """The rows of a part with their numbers; the text of a problem where a row cannot be read.

    Raises:
        UserError: the file itself cannot be read.
    """
    import pyarrow as pa

    try:
        if part.format == "jsonl":
            yield from ((number, _object(line)) for number, line in _picked(_lines(part), part.chosen))
        elif part.format in ("parquet", "arrow"):
            yield from _read_arrow(part)
        else:
            yield from _picked(_read_json(part) if part.format == "json" else _read_csv(part), part.chosen)
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
        raise _unreadable(part.file, error) from error


def _picked(rows: Iterator[T], chosen: np.ndarray | None) -> Iterator[T]:
    """Those at the chosen positions; none behind the last of them is asked for."""
    if chosen is None:
        yield from rows
        return
    begin = 0
    for position in chosen.tolist():
        yield from islice(rows, position - begin, position - begin + 1)
        begin = position + 1


class _Number(float):
    """A number of JSON that is shown as it was spelled."""

    spelled: str

    def __new__(cls, spelled: str) -> _Number:
        number = super().__new__(cls, spelled)
        number.spelled = spelled
        return number

    def __str__(self) -> str:
        return self.spelled

    def __reduce__(self) -> tuple[object, ...]:
        return _Number, (self.spelled,)


_DECODER = json.JSONDecoder(parse_float=_Number)


def _object(line: str | bytes) -> Raw | str:
    try:
        value = _DECODER.decode(_unicode(line))
    except UnicodeError:
        return _NO_UTF8
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        return f"{BROKEN}: no JSON, {reason}"
    return _mapping(value)


def _mapping(value: object) -> Raw | str:
    return value if isinstance(value, dict) else f"{BROKEN}: {type(value).__name__} instead of an object"


def _lines(part: Part) -> Iterator[tuple[int, str | bytes]]:
    """The lines that are not empty, with their numbers."""
    if part.end is None:
        with _text(part.file, part.compression, "\n") as stream:
            yield from ((number, text) for number, text in enumerate(stream, part.first) if text.strip())
        return
    with open(part.file, "rb") as stream:
        stream.seek(part.start)
        left = part.end - part.start
        for number, line in enumerate(stream, part.first):
            if left <= 0:
                return
            left -= len(line)
            if line.strip():
                yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _read_json(part: Part) -> Iterator[Numbered]:
    """An array of objects; one object that holds such an array; or objects one after the other."""
    with _text(part.file, part.compression, None) as stream:
        text = stream.read()
    if _not_unicode(text):
        raise UserError.at("task.path", f"{part.file!r} is not UTF-8; save it as UTF-8", value=part.file)
    if not text.strip():
        return
    try:
        value = json.loads(text, parse_float=_Number)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[0] != "{":
            reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
            raise UserError.at("task.path", f"{part.file!r} is no JSON: {reason}", value=part.file) from None
        yield from _objects(text)
        return
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        rows = lists[0] if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict) else [value]
    else:
        rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, 1):
        yield number, _mapping(row)


def _objects(text: str) -> Iterator[Numbered]:
    """Objects one after the other, each on a line or spread over several; the number is that of its first line."""
    lines = text.split("\n")
    decoder = json.JSONDecoder(parse_float=_Number)
    if sum(1 for line in lines[:100] if line.strip() and isinstance(_object(line), str)) * 2 < min(len(lines), 100):
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _object(line)
        return
    at = 0
    while at < len(text):
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return
        number = text.count("\n", 0, at) + 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            yield number, f"{BROKEN}: no JSON"
            return
        yield number, _mapping(value)


def _read_csv(part: Part) -> Iterator[Numbered]:
    csv.field_size_limit(sys.maxsize)
    with _text(part.file, part.compression, "") as stream:
        head = stream.readline()
        while head and not head.strip():
            head = stream.readline()
        delimiter = _delimiter(head, "\t" if part.format == "tsv" else ",")
        reader = csv.reader(chain([head], stream), delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        number = reader.line_num + 1
        for row in reader:
            if any(row):
                yield number, _record(header, row)
            number = reader.line_num + 1


def _record(header: list[str], row: list[str]) -> Raw | str:
    if len(row) != len(header):
        return f"{BROKEN}: {len(row)} fields under {len(header)} columns"
    if any(map(_not_unicode, row)):
        return _NO_UTF8
    return dict(zip(header, row, strict=True))


def _delimiter(header: str, default: str) -> str:
    """What parts the columns' names: the default, unless another mark is there and it is not."""
    outside = "".join(header.split('"')[::2])
    if default in outside:
        return default
    return max(",;\t|", key=outside.count) if any(mark in outside for mark in ",;\t|") else default


def _parquet(file: str) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(file if not is_url(file) else _open_plain(file))


def _read_arrow(part: Part) -> Iterator[Numbered]:
    begin, chosen = 0, part.chosen
    for batch in _batches(part):
        end = begin + batch.num_rows
        at = np.arange(begin, end)
        if chosen is not None:
            at = chosen[slice(*np.searchsorted(chosen, [begin, end]))]
            batch = batch.take(at - begin)
        yield from zip((part.first + at).tolist(), batch.to_pylist(), strict=True)
        begin = end
        if chosen is not None and (not len(chosen) or begin > chosen[-1]):
            return


def _batches(part: Part) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    if part.format == "parquet":
        source = _parquet(part.file)
        end = source.metadata.num_row_groups if part.end is None else part.end
        if end > part.start:
            yield from source.iter_batches(_ROWS_PER_BATCH, row_groups=list(range(part.start, end)))
        return
    if is_url(part.file) or part.compression:
        stream: object = pa.py_buffer(open_bytes(part.file, part.compression).read())
    else:
        stream = pa.memory_map(part.file)
    try:
        source = pa.ipc.open_file(stream)
        batches = (source.get_batch(index) for index in range(source.num_record_batches))
    except pa.ArrowInvalid:  # the stream format, which `datasets` writes
        batches = iter(pa.ipc.open_stream(stream))
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_PER_BATCH):
            yield batch.slice(start, _ROWS_PER_BATCH)


def class_names(part: Part) -> dict[str, list[str]]:
    """Names of the classes of columns that hold their numbers, where the file says so (as `datasets` writes it)."""
    import pyarrow as pa

    try:
        if part.format == "parquet":
            schema = _parquet(part.file).schema_arrow
        elif part.format == "arrow" and not is_url(part.file):
            batch = next(_batches(part), None)
            schema = pa.schema([]) if batch is None else batch.schema
        else:
            return {}
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {name: about["names"] for name, about in features.items() if about.get("_type") == "ClassLabel"}
    except (ValueError, AttributeError, KeyError, OSError, pa.ArrowException):
        return {}
