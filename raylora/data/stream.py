"""Ray Data, streaming: tasks turn rows into Arrow blocks on disk, and tell the driver what is in them.

The driver never holds a block. Where other nodes do not see the driver's cache folder, they hand their blocks over
and the driver writes them, one at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.cluster import users_errors

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

Step = Callable[["pa.Table"], "pa.Table"]
Say = Callable[[str], None]

# What is worked on at once within a task, and the record batches of a block.
ROWS_PER_BATCH = 1024
_ROWS_PER_TASK, _BLOCKS_AT_MOST = 8192, 256
_TASKS_PER_WINDOW = 16
# So that no more than five seconds pass between lines.
_SAY_EVERY_S = 4.0


@contextlib.contextmanager
def data_context(quiet: bool) -> Iterator[None]:
    """Blocks come back in source order; `quiet` silences the progress bars.

    Ray Data's own log lines never show: what goes wrong is raised.
    """
    from ray.data import DataContext

    context = DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = (context.execution_options.preserve_order, context.enable_progress_bars, logger.level)
    wrapped = context.raise_original_map_exception
    context.execution_options.preserve_order = True
    # What a function raises comes back itself, not as its text in an exception of Ray Data's.
    context.raise_original_map_exception = True
    context.enable_progress_bars = context.enable_progress_bars and not quiet
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before[:2]
        context.raise_original_map_exception = wrapped
        logger.setLevel(before[2])


def _blocks(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """The blocks of a dataset, executed as they are asked for."""
    with users_errors():
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


@contextlib.contextmanager
def heard_of(tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell`, from a thread of its own, every few seconds until the end of the block."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_SAY_EVERY_S):
            tell()

    teller = threading.Thread(target=beat, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


class Counter:
    """Says every few seconds how many rows are done, also while none is; used with `with`."""

    def __init__(self, say: Say, text: str, total: int | None = None) -> None:
        self.say, self.text, self.total = say, text, total
        self.done = 0
        self._told, self._since = -1, time.monotonic()
        self._beats = heard_of(self._tell)

    def __enter__(self) -> Counter:
        self._beats.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._beats.__exit__(*error)

    def _tell(self) -> None:
        of = "" if self.total is None else f" of {self.total:,}"
        still = f" after {time.monotonic() - self._since:.0f} s" if self.done == self._told else ""
        self._told = self.done
        self.say(f"data: {self.done:,}{of} {self.text}{still}")

    def add(self, rows: int) -> None:
        self.done += rows


# --- blocks on disk ---


def write_block(tables: Iterable[pa.Table], folder: str) -> dict[str, object]:
    """An Arrow IPC file of these tables' rows in `folder`: `{"file": its name, "rows": how many}`."""
    import pyarrow as pa

    name = f"{uuid.uuid4().hex}.arrow"
    rows, writer = 0, None
    try:
        for table in tables:
            if writer is None:
                writer = pa.ipc.new_file(os.path.join(folder, name), table.schema)
            writer.write_table(table.combine_chunks(), max_chunksize=ROWS_PER_BATCH)
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return {"file": name, "rows": rows}


def _summary(figures: list[Mapping[str, object]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(figures)


def _write_rows(table: pa.Table, *, folder: str) -> pa.Table:
    return _summary([write_block([table], folder)])


def read_rows(
    source: ray.data.Dataset, folder: Path, *, shared: bool, quiet: bool, counter: Counter
) -> dict[str, object]:
    """Execute `source` into blocks in `folder`: `{"blocks": file names, "rows": total, "block_rows": of each}`.

    Args:
        shared: whether the tasks, wherever they run, see `folder`.
    """
    made: list[dict[str, Any]] = []
    with data_context(quiet):
        if shared:
            step = partial(_write_rows, folder=str(folder))
            told: Iterable[dict[str, Any]] = (
                figures
                for table in _blocks(source.map_batches(step, batch_format="pyarrow", batch_size=None))
                for figures in table.to_pylist()
            )
        else:
            told = (write_block([table], str(folder)) for table in _blocks(source))
        for figures in told:
            if figures["rows"]:
                made.append(figures)
                counter.add(figures["rows"])
    rows = [figures["rows"] for figures in made]
    return {"blocks": [figures["file"] for figures in made], "rows": sum(rows), "block_rows": rows}


# --- tokens ---


def prompt_keys(table: pa.Table) -> np.ndarray:
    """A 64-bit hash of each prompt, `(n,)` uint64; of plain text, which has none, of the text."""
    pairs = zip(table["prompt"].to_pylist(), table["response"].to_pylist(), strict=True)
    hashed = [hashlib.blake2b((prompt or said or "").encode(), digest_size=8).digest() for prompt, said in pairs]
    return np.frombuffer(b"".join(hashed), dtype=np.uint64)


def _figures(table: pa.Table) -> dict[str, np.ndarray]:
    """Of a tokenised table, `(n,)` each: tokens of prompt and response, hash of the prompt, whether it is usable."""
    import pyarrow.compute as pc

    columns = table.schema.names
    lengths = {
        name: pc.list_value_length(table[f"{name}_ids"]).to_numpy().astype(np.int32) for name in ("prompt", "response")
    }
    usable = pc.is_null(table["problem"]).to_numpy() if "problem" in columns else np.ones(table.num_rows, dtype=bool)
    return {
        "prompts": lengths["prompt"],
        "responses": lengths["response"],
        "keys": prompt_keys(table),
        "usable": usable,
    }


FIGURES = {"prompts": np.int32, "responses": np.int32, "keys": np.uint64, "usable": np.bool_}


def _tokenised(item: dict[str, Any], tokenise: Step) -> Iterator[pa.Table]:
    """The rows that an item names, tokenised and numbered, a few at a time."""
    import pyarrow as pa

    from trainables.rows import Rows

    rows = Rows(item["parts"], _unpacked(item["inside"], item["rows"]))
    numbers = pa.array(_unpacked(item["positions"], item["rows"]))
    for start in range(0, len(rows), ROWS_PER_BATCH):
        table = tokenise(rows[start : start + ROWS_PER_BATCH].table())
        yield table.add_column(0, "row", numbers.slice(start, table.num_rows))


def _keep(tables: Iterable[pa.Table], folder: str) -> dict[str, object]:
    """Write tokenised tables as one block; what the driver has to know of it."""
    from raylora.data.problems import Problems

    found: list[dict[str, np.ndarray]] = []
    problems = Problems()

    def watched() -> Iterator[pa.Table]:
        for table in tables:
            found.append(_figures(table))
            problems.add(table)
            yield table

    made = write_block(watched(), folder)
    joined = {name: b"".join(figures[name].tobytes() for figures in found) for name in FIGURES}
    return {**made, **joined, "problems": json.dumps(vars(problems))}


def _write_tokens(items: pa.Table, *, tokenise: Step, folder: str) -> pa.Table:
    return _summary([_keep(_tokenised(item, tokenise), folder) for item in items.to_pylist()])


def _items(blocks: list[str], block_rows: list[int], positions: np.ndarray) -> list[dict[str, Any]]:
    """The work on the rows at `positions` (ascending), cut for tasks: their files, and the places within these."""
    count = len(positions)
    size = max(min(_ROWS_PER_TASK, -(-count // 8)), 512, -(-count // _BLOCKS_AT_MOST))
    ends = np.cumsum(block_rows)
    items = []
    for start in range(0, count, size):
        part = np.ascontiguousarray(positions[start : start + size], dtype=np.int64)
        first, last = np.searchsorted(ends, part[[0, -1]], side="right")
        inside = part - (ends[first - 1] if first else 0)
        parts = blocks[first : last + 1]
        items.append({"parts": parts, "rows": len(part), "inside": _packed(inside), "positions": _packed(part)})
    return items


def _packed(positions: np.ndarray) -> bytes:
    """Ascending positions; of a run without gaps its ends."""
    whole = positions[-1] - positions[0] == len(positions) - 1
    return (positions[[0, -1]] if whole else positions).tobytes()


def _unpacked(packed: bytes, count: int) -> np.ndarray:
    positions = np.frombuffer(packed, dtype=np.int64)
    return positions if len(positions) == count else np.arange(positions[0], positions[-1] + 1)


def write_tokens(
    blocks: list[str],
    block_rows: list[int],
    positions: np.ndarray,
    tokenise: Step,
    folder: Path,
    *,
    shared: bool,
    quiet: bool,
    counter: Counter,
) -> dict[str, Any]:
    """Tokenise the rows at `positions` (ascending) of some blocks into blocks in `folder`, in that order.

    Saves `prompts`, `responses`, `keys` and `usable` there (see `split.Pool`), `(n,)` each.

    Returns:
        `{"blocks": file names, "rows": total, "problems": list of the fields of `Problems`}`.
    """
    import pyarrow as pa
    import ray.data

    items = _items(blocks, block_rows, positions)
    figures: dict[str, np.ndarray] = {name: np.empty(len(positions), kind) for name, kind in FIGURES.items()}
    files: list[str] = []
    problems: list[dict[str, Any]] = []
    with data_context(quiet):
        if shared:
            work = ray.data.from_arrow([pa.Table.from_pylist([item]) for item in items])
            step = partial(_write_tokens, tokenise=tokenise, folder=str(folder))
            told: Iterable[dict[str, Any]] = (
                part
                for table in _blocks(work.map_batches(step, batch_format="pyarrow", batch_size=None))
                for part in table.to_pylist()
            )
        else:
            told = (_keep([table], str(folder)) for table in _handed_over(items, tokenise))
        for part in told:
            for name, kind in FIGURES.items():
                figures[name][counter.done : counter.done + part["rows"]] = np.frombuffer(part[name], dtype=kind)
            files.append(part["file"])
            problems.append(json.loads(part["problems"]))
            counter.add(part["rows"])
    for name, values in figures.items():
        np.save(folder / f"{name}.npy", values)
    return {"blocks": files, "rows": len(positions), "problems": [one for one in problems if one["counts"]]}


def _handed_over(items: list[dict[str, Any]], tokenise: Step) -> Iterator[pa.Table]:
    """As `_tokenised`, by tasks that see no file of this node: a window of rows at a time lies in the object store."""
    import pyarrow as pa
    import ray.data

    from trainables.rows import Rows

    for start in range(0, len(items), _TASKS_PER_WINDOW):
        window = items[start : start + _TASKS_PER_WINDOW]
        numbers = np.concatenate([_unpacked(item["positions"], item["rows"]) for item in window])
        rows = [Rows(item["parts"], _unpacked(item["inside"], item["rows"])).table() for item in window]
        done = 0
        for table in _blocks(ray.data.from_arrow(rows).map_batches(tokenise, batch_format="pyarrow", batch_size=None)):
            yield table.add_column(0, "row", pa.array(numbers[done : done + table.num_rows]))
            done += table.num_rows


def folder_is_shared(folder: Path) -> bool:
    """Whether every node of the cluster sees what this one writes into `folder`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return True
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    try:
        probe = ray.remote(num_cpus=0)(os.path.exists)
        seen = [
            probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote(str(mark))
            for node in others
        ]
        return all(ray.get(seen))
    finally:
        mark.unlink(missing_ok=True)
