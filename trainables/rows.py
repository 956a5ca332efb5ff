"""Rows of tokenised tables, read where they lie: memory-mapped Arrow files, or tables in Ray's object store.

A row is looked up when it is asked for and its tokens are views of the file, so a process holds what it works on and
never the data set. Every worker of a group is given all rows and touches its own.
"""

from __future__ import annotations

import errno
import mmap
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from trainables.protocols import Row

# Pages of a file that were read stay mapped and count as this process's memory: beyond this many bytes, they are given
# back to the system, which keeps them for as long as it has room.
_MAPPED_BYTES = 128 * 2**20
# What is mapped where one byte is looked at: Linux maps the pages around it that are there already.
_AROUND_BYTES = 64 * 2**10


class Rows(Sequence[Row]):
    """A selection of the rows of Arrow tables, in order. Small, whatever it refers to: pickles as names and positions.

    Args:
        parts: Arrow IPC files (paths), or object references of Arrow tables, one after the other.
        chosen: Positions in the tables laid end to end, `(n,)`; None for all of them.

    A row is a mapping of the tables' columns; lists of token ids are read-only int32 arrays.
    """

    def __init__(self, parts: Sequence[Any], chosen: np.ndarray | None = None) -> None:
        self.parts, self.chosen = list(parts), chosen
        self._tables: _Tables | None = None

    @property
    def tables(self) -> _Tables:
        if self._tables is None:
            self._tables = _Tables(self.parts)
        return self._tables

    def __len__(self) -> int:
        return len(self.tables) if self.chosen is None else len(self.chosen)

    def position(self, index: int) -> int:
        """Where a row stands in the tables laid end to end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        return index if self.chosen is None else int(self.chosen[index])

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        return self.tables.row(self.position(index))

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """The rows at `indices`, as lazy as these; no row is read."""
        at = np.asarray(indices, dtype=np.int64)
        taken = Rows(self.parts, at if self.chosen is None else self.chosen[at])
        taken._tables = self._tables
        return taken

    def table(self) -> pa.Table:
        """These rows as one Arrow table, in memory."""
        return self.tables.take(np.arange(len(self)) if self.chosen is None else np.asarray(self.chosen))

    def in_object_store(self, rows_per_table: int = 8192) -> Rows:
        """The same rows as tables in Ray's object store, for nodes that cannot see the files."""
        import ray

        starts = range(0, len(self), rows_per_table)
        return Rows([ray.put(self[start : start + rows_per_table].table()) for start in starts])

    def __reduce__(self) -> tuple[object, ...]:
        return Rows, (self.parts, self.chosen)


def as_rows(source: Sequence[object]) -> Rows:
    """Rows, from Rows or from files and object references of Arrow tables; nothing is copied."""
    return source if isinstance(source, Rows) else Rows(source)


class _Tables:
    """The record batches of some tables as one sequence of rows; a file is opened when it is first needed."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.read: dict[int, _Batch] = {}
        self.maps: list[mmap.mmap] = []
        self.ends: list[int] = []
        self.touched = 0
        for batch in self._open(parts):
            if batch.num_rows:
                self.batches.append(batch)
                self.ends.append((self.ends[-1] if self.ends else 0) + batch.num_rows)
        self.schema = None if not self.batches else self.batches[0].schema

    def _open(self, parts: Sequence[object]) -> Iterator[pa.RecordBatch]:
        refs = [part for part in parts if not isinstance(part, str | Path)]
        fetched = iter(())
        if refs:
            import ray

            fetched = iter(ray.get(refs))
        for part in parts:
            if isinstance(part, str | Path):
                yield from self._map(Path(part))
            else:
                yield from next(fetched).to_batches()

    def _map(self, file: Path) -> Iterator[pa.RecordBatch]:
        held: mmap.mmap | bytes
        with file.open("rb") as stream:
            try:
                held = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                self.maps.append(held)
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
                # A process out of addresses still has the memory that it took before.
                held = stream.read()
        reader = pa.ipc.open_file(pa.py_buffer(held))
        for index in range(reader.num_record_batches):
            self._count(_AROUND_BYTES)
            yield reader.get_batch(index)

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def row(self, position: int) -> Row:
        which = bisect_right(self.ends, position)
        if which not in self.read:
            self.read[which] = _Batch(self.batches[which])
        self._count_rows(self.batches[which], 1)
        return _LazyRow(self.read[which], position - (self.ends[which - 1] if which else 0))

    def _count_rows(self, batch: pa.RecordBatch, rows: int) -> None:
        """Count what looking at so many rows of a batch maps: places and values of each of its columns."""
        if self.maps:
            self._count(min(batch.get_total_buffer_size(), rows * 2 * batch.num_columns * _AROUND_BYTES))

    def _count(self, size: int) -> None:
        self.touched += size
        if self.touched > _MAPPED_BYTES:
            self.touched = 0
            for mapped in self.maps:
                mapped.madvise(mmap.MADV_DONTNEED)

    def take(self, positions: np.ndarray) -> pa.Table:
        """The rows at `positions`, in that order, batch by batch."""
        if not len(positions):
            return pa.table({}) if self.schema is None else self.schema.empty_table()
        which = np.searchsorted(np.asarray(self.ends), positions, side="right")
        order = np.argsort(which, kind="stable")
        parts = []
        for batch in np.unique(which):
            begin = self.ends[batch - 1] if batch else 0
            inside = positions[which == batch] - begin
            parts.append(self.batches[batch].take(pa.array(inside)))
            self._count_rows(self.batches[batch], len(inside))
        table = pa.Table.from_batches(parts)
        return table if np.array_equal(order, np.arange(len(order))) else table.take(pa.array(np.argsort(order)))


class _Batch:
    """A record batch with its list columns as offsets and values."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self.columns = {name: batch.column(name) for name in batch.schema.names}
        self.lists = {
            name: (column.offsets.to_numpy(), column.values.to_numpy())
            for name, column in self.columns.items()
            if pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type) and not column.null_count
        }

    def value(self, name: str, at: int) -> Any:
        if name in self.lists:
            offsets, values = self.lists[name]
            return values[offsets[at] : offsets[at + 1]]
        return self.columns[name][at].as_py()


class _LazyRow(Mapping[str, Any]):
    __slots__ = ("_at", "_batch")

    def __init__(self, batch: _Batch, at: int) -> None:
        self._batch, self._at = batch, at

    def __getitem__(self, name: str) -> object:
        return self._batch.value(name, self._at)

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.columns)

    def __len__(self) -> int:
        return len(self._batch.columns)

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (dict(self.items()),)


def set_apart(rows: Sequence[Row], count: int, seed: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """Draws rows that are not to be trained on: at most `count`, and at most an eighth of all.

    Returns:
        The rows to train on, in their order, and those set apart: none of fewer than eight rows. The same for the same
        seed; with a `count` of 0, the rows themselves and none.
    """
    count = min(count, len(rows) // 8)
    if not count:
        return rows, ()
    drawn = np.random.default_rng(seed).permutation(len(rows))[:count]
    rest = np.setdiff1d(np.arange(len(rows)), drawn)
    if isinstance(rows, Rows):
        return rows.take(rest), rows.take(drawn)
    return [rows[i] for i in rest], [rows[i] for i in drawn]
