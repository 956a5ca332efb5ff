"""From a task's raw rows to tokenised Arrow tables in Ray's object store.

The train split (and the validation split, where the source has one) is loaded and tokenised by Ray Data,
once. What comes of it (train, the proxy subset that trials train on, validation) is shared by all trials as
object references. The test split is tokenised when, and only when, `Prepared.test` is called.

How rows are split, all of it reproducible:

- test: the source's own test split; where there is none, 10 % of train (at most 1,000 rows, or the task's
  `test_rows`), drawn with a constant seed, so that no other seed of a later run ever trains on them;
- validation: the source's own validation split or else rows of train, drawn with `seed`;
- train: the rest, in source order, without rows whose prompt also occurs in validation or in a test set that
  was carved from train;
- proxy: a subset of train drawn with `seed`; for one seed, a smaller fraction is a subset of a larger one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from raylora.cluster import users_errors
from raylora.data.problems import Problems, dropped
from raylora.data.rows import RowSource, Source, table_of
from raylora.data.tokenise import Tokenising, model_positions, schema, tokenise, tokenizer_files
from raylora.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import ray

T = TypeVar("T")
Refs = list["ray.ObjectRef[pa.Table]"]

TEST_FRACTION, TEST_AT_MOST, TEST_SEED = 0.1, 1000, 0
# Of a list of rows: a block is a task, and starting one costs more than tokenising this many rows.
_ROWS_PER_BLOCK = 4_096
_ROWS_PER_TABLE = 8_192
_VALIDATION, _PROXY, _TRAIN, _TEST = range(4)  # one random stream for each draw


@dataclass
class Prepared:
    """Tokenised data in the object store: lists of references of Arrow tables (see `tokenise.schema`).

    Attributes:
        train, proxy, validation: see the module. `proxy` is `train` itself for the fraction 1.
        test: returns the test rows; the first call reads and tokenises them.
        counts: what was kept and dropped, in rows, and `train_tokens`, `proxy_tokens` (prompt + response).
            `test`, `test_dropped_too_long` and `test_prompts_in_train` are there once `test` was called.
        notes: what a person should be told of the rows, in lines.
    """

    train: Refs
    proxy: Refs
    validation: Refs
    test: Callable[[], Refs]
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _data_context(quiet: bool) -> Iterator[None]:
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


def _load(source: Source, step: Callable[[pa.Table], pa.Table], quiet: bool) -> pa.Table:
    """One Ray Data execution: read, tokenise, number the rows. Returns views of the blocks in the object store."""
    import pyarrow as pa
    import ray

    with _data_context(quiet):
        raw = source()
        if isinstance(raw, list):
            table = table_of(raw)
            parts = [table.slice(start, _ROWS_PER_BLOCK) for start in range(0, len(raw), _ROWS_PER_BLOCK)]
            raw = ray.data.from_arrow(parts or [table])
        with users_errors():
            done = raw.map_batches(step, batch_format="pyarrow", batch_size=None).materialize()
            blocks = ray.get(done.to_arrow_refs())
    whole = schema()
    blocks = [block for block in blocks if block.num_rows] or [whole.remove(0).empty_table()]
    tokenised = pa.concat_tables([block.select(whole.names[1:]) for block in blocks])
    return tokenised.add_column(0, whole.field(0), pa.array(np.arange(tokenised.num_rows)))


def _put(table: pa.Table, rows: np.ndarray) -> Refs:
    """The chosen rows, in that order, as tables of bounded size in the object store."""
    import ray

    parts = [rows[start : start + _ROWS_PER_TABLE] for start in range(0, len(rows), _ROWS_PER_TABLE)]
    return [ray.put(table.take(part).combine_chunks()) for part in parts]


# --- splitting ---


def _order(count: int, seed: int, stream: int) -> np.ndarray:
    return np.random.default_rng([seed, stream]).permutation(count)


def proxy_rows(count: int, fraction: float, seed: int) -> np.ndarray:
    """Sorted positions of the proxy subset in a train split of `count` rows.

    Their number is rounded to the nearest, and at least one. For one seed a smaller fraction gives a subset of a
    larger one.
    """
    size = max(1, round(fraction * count))
    return np.sort(_order(count, seed, _PROXY)[:size])


def _lengths(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Token counts of prompts and of responses, `(n,)` each."""
    import pyarrow.compute as pc

    prompts, responses = (pc.list_value_length(table[name]) for name in ("prompt_ids", "response_ids"))
    return prompts.to_numpy(), responses.to_numpy()


def _usable(table: pa.Table) -> np.ndarray:
    """Mask `(n,)` of the rows without a problem."""
    import pyarrow.compute as pc

    return pc.is_null(table["problem"]).to_numpy()


def _has_prompt_of(table: pa.Table, held_out: pa.Table) -> np.ndarray:
    """Mask `(n,)` of the rows of `table` whose prompt occurs in `held_out`."""
    import pyarrow.compute as pc

    return pc.is_in(table["prompt"], value_set=held_out["prompt"].combine_chunks()).to_numpy()


@dataclass
class _Parts:
    train: np.ndarray  # positions in the source table, ascending
    validation: pa.Table
    test: pa.Table | None  # None: the source has a test split of its own, still unread
    counts: dict[str, int]


def _split(
    table: pa.Table,
    own_validation: pa.Table | None,
    *,
    carve_test: bool,
    task: RowSource,
    seed: int,
    validation_rows: int,
    max_length: int,
) -> _Parts:
    """Who trains, validates and tests; see the module for the rules."""
    count = table.num_rows
    room = max_length - task.max_new_tokens
    prompts, responses = _lengths(table)
    good = _usable(table)
    fits = good & (prompts <= room)
    short = prompts + responses <= max_length
    left = good.copy()  # rows not spoken for yet
    duplicates = 0

    test = None
    if carve_test:
        limit = task.test_rows or max(1, min(TEST_AT_MOST, round(TEST_FRACTION * count)))
        order = _order(count, TEST_SEED, _TEST)
        test = table.take(np.sort(order[fits[order]][:limit]))
        left &= ~_has_prompt_of(table, test)
        duplicates += int(good.sum()) - int(left.sum()) - test.num_rows

    if task.train_rows is not None:
        order = _order(count, seed, _TRAIN)
        left[order[left[order]][task.train_rows :]] = False

    pool, usable = (
        (table, left & fits)
        if own_validation is None
        else (own_validation, _usable(own_validation) & (_lengths(own_validation)[0] <= room))
    )
    order = _order(pool.num_rows, seed, _VALIDATION)
    candidates = order[usable[order]]
    if own_validation is None and len(candidates) <= validation_rows:
        raise UserError(
            f"task.validation_rows: {validation_rows} of {len(candidates)} usable train rows leave none to "
            "train on; lower validation_rows or give more rows"
        )
    if not len(candidates):
        raise UserError(
            f"task.max_length: {max_length} leaves no validation prompt of at most {room} tokens; raise max_length"
        )
    validation = pool.take(np.sort(candidates[:validation_rows]))
    before = int(left.sum())
    left &= ~_has_prompt_of(table, validation)
    duplicates += before - int(left.sum()) - (validation.num_rows if own_validation is None else 0)

    train = np.flatnonzero(left & short)
    if not len(train):
        raise UserError(f"task.max_length: {max_length} leaves no train row of {int(left.sum())}; raise max_length")
    considered = int(_usable(pool).sum() if own_validation is not None else before)
    return _Parts(
        train,
        validation,
        test,
        {
            "source": count,
            "train": len(train),
            "validation": validation.num_rows,
            "train_dropped_too_long": int((left & ~short).sum()),
            "train_dropped_duplicate": duplicates,
            "validation_dropped_too_long": considered - len(candidates),
            "train_tokens": int((prompts + responses)[train].sum()),
            "train_responses_over_max_new_tokens": int((responses[train] > task.max_new_tokens).sum()),
        },
    )


def build(
    task: RowSource,
    tokenizer_folder: str | Path,
    *,
    proxy: float,
    seed: int,
    validation_rows: int,
    max_length: int,
    system: str | None = None,
    chat_template: bool = True,
    train_on: Literal["all", "last"] = "all",
    truncate: Literal["drop", "left", "right"] = "drop",
    control_tokens: bool | None = None,
    allow_broken: bool | float = False,
    quiet: bool = False,
) -> Prepared:
    """Load, split, tokenise and subset the rows of `task`. Starts a local Ray where none is running.

    Args:
        task: where the rows come from. Its `train_rows` and `test_rows`, where set, bound a split by a seeded
            sample; `train_rows` counts the validation rows carved from train too.
        tokenizer_folder: local folder with the tokenizer's files.
        proxy: fraction of train, in (0, 1], that trials train on.
        seed: of the draws of validation, proxy and a bounded train (not of test: see the module).
        validation_rows: size of validation; a source with its own validation split may have fewer.
        max_length: longest prompt + response in tokens. Longer rows are dropped from train (unless `truncate` cuts
            them); validation and test rows are dropped where the prompt leaves no room for `task.max_new_tokens`.
        system: system message; "" is an empty one, None leaves the chat template to its default.
        chat_template: whether to use the tokenizer's chat template, if it has one.
        train_on, truncate, control_tokens: see `tokenise.Tokenising`.
        allow_broken: share of rows of a split that may be unusable, or True for any; False is 5 %.
        quiet: no progress bars.

    Raises:
        UserError: an argument out of range, rows that the task cannot read, or a split that comes out empty.
    """
    import ray

    if not 0 < proxy <= 1:
        raise UserError(f"task.proxy: {proxy} is not in (0, 1]; give the fraction of train that trials use")
    if validation_rows < 1:
        raise UserError(f"task.validation_rows: {validation_rows} is below 1; give 1 or more")
    if max_length <= task.max_new_tokens:
        raise UserError(
            f"task.max_length: {max_length} leaves no room for a prompt before {task.max_new_tokens} new "
            "tokens; raise max_length or lower max_new_tokens"
        )

    sources = task.splits()
    content = tokenizer_files(Path(tokenizer_folder))
    cut = {} if truncate == "drop" else {"max_length": max_length, "max_new_tokens": task.max_new_tokens}
    how = Tokenising(
        system, chat_template, train_on, control_tokens, truncate, positions=model_positions(content), **cut
    )
    files = ray.put(content)
    load = partial(
        _load,
        step=partial(tokenise, files=files, how=how),
        quiet=quiet,
    )
    notes: list[str] = []
    unusable: dict[str, int] = {}

    def load_split(split: str) -> pa.Table:
        loaded = load(sources[split])
        notes.extend(filter(None, [getattr(sources[split], "told", None)]))
        problems = Problems()
        problems.add(loaded)
        problems.check(split, allow_broken)
        notes.extend(filter(None, [problems.told(split)]))
        unusable.update(dropped({split: problems}))
        return loaded

    table = load_split("train")
    parts = _split(
        table,
        load_split("validation") if "validation" in sources else None,
        carve_test="test" not in sources,
        task=task,
        seed=seed,
        validation_rows=validation_rows,
        max_length=max_length,
    )
    chosen = parts.train[proxy_rows(len(parts.train), proxy, seed)]
    lengths = np.add(*_lengths(table))
    counts = parts.counts | unusable | {"proxy": len(chosen), "proxy_tokens": int(lengths[chosen].sum())}
    train = _put(table, parts.train)
    carved = None if parts.test is None else _put(parts.test, np.arange(parts.test.num_rows))

    @cache
    def test() -> Refs:
        own = ray_table(carved) if carved is not None else load_split("test")
        counts.update(unusable)
        good = _usable(own)
        rows = np.flatnonzero(good & (_lengths(own)[0] <= max_length - task.max_new_tokens))
        counts["test_dropped_too_long"] = int(good.sum()) - len(rows)
        if carved is None and task.test_rows is not None:
            order = _order(len(rows), TEST_SEED, _TEST)
            rows = rows[np.sort(order[: task.test_rows])]
        if not len(rows):
            raise UserError(f"task.max_length: {max_length} leaves no test row of {own.num_rows}; raise max_length")
        kept = own.take(rows)
        counts["test"] = len(rows)
        counts["test_prompts_in_train"] = int(_has_prompt_of(kept, ray_table(train)).sum())
        return _put(kept, np.arange(len(rows)))

    proxy_refs = train if len(chosen) == len(parts.train) else _put(table, chosen)
    validation = _put(parts.validation, np.arange(parts.validation.num_rows))
    return Prepared(train, proxy_refs, validation, test, counts, notes)


# --- using the tables ---


def ray_table(refs: Refs) -> pa.Table:
    """The tables behind `refs` as one (no copy)."""
    import pyarrow as pa
    import ray

    return pa.concat_tables(ray.get(list(refs))) if refs else schema().empty_table()


def rows_from_refs(refs: Refs) -> list[dict[str, Any]]:
    """The rows behind `refs` as dicts with the columns of `schema`; token ids are lists of int."""
    return ray_table(refs).to_pylist()
