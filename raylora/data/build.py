"""From a task's raw rows to tokenised Arrow blocks on disk, and to the rows that train, validate and test.

Ray Data reads a split into blocks once and tokenises what the run needs of it, both kept from run to run (see `store`).
The driver holds lengths, hashes and positions; trials and the final stage read their rows from the memory-mapped
blocks. `split` says which rows are which. A test set is read when, and only when, `Prepared.tests` is called for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np

from raylora.data.identity import blocks_hash, code_hash, files_hash, table_hash, task_hash, tokenizer_hash
from raylora.data.problems import Problems, dropped
from raylora.data.rows import RowSource, Source, table_of
from raylora.data.split import among, proxy_rows, split, test_rows
from raylora.data.store import cache_root, digest, obtain
from raylora.data.stream import FIGURES, Counter, data_context, folder_is_shared, heard_of, read_rows, write_tokens
from raylora.data.tokenise import model_positions, tokenise, tokenizer_files
from raylora.data.tokens import Tokenising
from raylora.errors import UserError
from trainables.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

Test = tuple[Rows, dict[str, int]]

# Of a list of rows: a block is a task, and starting one costs more than reading this many rows.
_ROWS_PER_BLOCK = 4_096


@dataclass
class Prepared:
    """Tokenised data, in place; see `tokenise.schema` for the columns of a row.

    Attributes:
        train, proxy, validation: see `split`. `proxy` is `train` itself for the fraction 1.
        tests: the test sets by split (`test`, or `test.<name>` for each of several): a call gives the rows with counts
            of their own (`test`, `test_dropped_too_long`, `test_prompts_in_train`); the first one reads and tokenises
            them.
        counts: what was kept and dropped, in rows, and `train_tokens`, `proxy_tokens` (prompt + response). Where
            `train_rows` bounds train, of the rows that had to be looked at.
        notes: what a person should be told of the rows, in lines.
    """

    train: Rows
    proxy: Rows
    validation: Rows
    tests: dict[str, Callable[[], Test]]
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def test(self) -> Test:
        """The first of the test sets, which is mostly the only one."""
        return next(iter(self.tests.values()))()


@dataclass(frozen=True)
class _Settings:
    """What all splits share."""

    tokenise: Callable[[pa.Table], pa.Table]
    identity: tuple[str, ...]  # of code and task
    tokens: tuple[str, ...]  # of tokenizer and rendering
    shared: bool
    allow_broken: bool | float
    quiet: bool
    say: Callable[[str], None]


class TokenPool:
    """The rows of one split of a source, tokenised as far as they were needed (a `split.Pool`)."""

    def __init__(self, name: str, source: Source, settings: _Settings) -> None:
        self.name, self.settings = name, settings
        self.source, self.content = self._read(source)
        self.told: str | None = getattr(source, "told", None)
        self.count = int(self.source.about["rows"])
        for figure, kind in FIGURES.items():
            setattr(self, figure, np.zeros(self.count, dtype=kind))
        self.problems = Problems()
        self.blocks: list[str] = []
        # Of each row in the blocks.
        self._place: np.ndarray = np.full(self.count, -1, dtype=np.int32 if self.count < 2**31 else np.int64)
        self._tokenised = 0

    prompts: np.ndarray
    responses: np.ndarray
    keys: np.ndarray
    usable: np.ndarray

    def _read(self, source: Source) -> tuple[Any, str]:
        """The split's rows as an entry of the cache, and the hash of what is in them."""
        settings, label = self.settings, f"{self.name} rows"
        settings.say(f"data: reading {self.name}")
        # A dataset keeps the context that it was made in.
        with data_context(settings.quiet), heard_of(lambda: settings.say(f"data: looking at the files of {self.name}")):
            dataset, content = _opened(source)

        def make(folder: Path) -> dict[str, Any]:
            with Counter(settings.say, f"rows of {self.name} read") as counter:
                about = read_rows(dataset, folder, shared=settings.shared, quiet=settings.quiet, counter=counter)
            return {"label": label, **about}

        key = digest("rows", content or uuid4().hex, self.name, *settings.identity)
        entry, _ = obtain(key, make, settings.say)
        return entry, key if content else blocks_hash(entry.blocks)

    def need(self, positions: np.ndarray | None = None) -> None:
        missing = np.flatnonzero(self._place < 0)
        if positions is not None:
            positions = np.unique(positions)
            missing = positions[self._place[positions] < 0]
        if not len(missing):
            return
        settings, source = self.settings, self.source
        all_of_it = len(missing) == self.count
        of = f"{len(missing):,}" + ("" if all_of_it else f" of {self.count:,}") + f" rows of {self.name}"

        def make(folder: Path) -> dict[str, Any]:
            settings.say(f"data: tokenising {of}")
            with Counter(settings.say, "rows tokenised", len(missing)) as counter:
                about = write_tokens(
                    source.blocks,
                    source.about["block_rows"],
                    missing,
                    settings.tokenise,
                    folder,
                    shared=settings.shared,
                    quiet=settings.quiet,
                    counter=counter,
                )
            return {"label": f"{self.name} tokens", **about}

        which = "all" if all_of_it else digest(missing.astype(np.int64).tobytes())
        started = time.monotonic()
        entry, found = obtain(digest("tokens", self.content, which, *settings.tokens), make, settings.say)
        self._add(entry, missing)
        told = "from the cache" if found else f"tokenised in {time.monotonic() - started:.0f} s"
        settings.say(f"data: {of} {told}")
        if all_of_it:
            self.problems.check(self.name, settings.allow_broken)

    def _add(self, entry: Any, positions: np.ndarray) -> None:
        for figure in FIGURES:
            getattr(self, figure)[positions] = entry.array(figure)
        self._place[positions] = self._tokenised + np.arange(len(positions))
        self._tokenised += len(positions)
        self.blocks += entry.blocks
        for found in entry.about["problems"]:
            self.problems.merge(Problems(rows=0, counts=found["counts"], first=found["first"]))
        self.problems.rows += len(positions)

    def rows(self, positions: np.ndarray) -> Rows:
        """The rows at `positions`, in that order, wherever the hosts are."""
        rows = Rows(self.blocks, self._place[positions])
        return rows if self.settings.shared else rows.in_object_store()


def _opened(source: Source) -> tuple[ray.data.Dataset, str | None]:
    """A split as a dataset, and the hash of its content where that can be told without reading it."""
    import ray.data

    raw = source()
    if not isinstance(raw, list):
        return raw, files_hash(source, raw)
    table = table_of(raw)
    starts = range(0, len(raw), _ROWS_PER_BLOCK)
    parts = [table.slice(start, _ROWS_PER_BLOCK) for start in starts] or [table]
    return ray.data.from_arrow(parts), table_hash(table)


def _check(task: RowSource, proxy: float, validation_rows: int | None, max_length: int) -> None:
    if not 0 < proxy <= 1:
        raise UserError.at(
            "task.proxy", f"{proxy} is not in (0, 1]; give the fraction of train that trials use", value=proxy
        )
    if validation_rows is not None and validation_rows < 1:
        raise UserError.at(
            "task.validation_rows", f"{validation_rows} is below 1; give 1 or more", value=validation_rows
        )
    if max_length <= task.max_new_tokens:
        raise UserError.at(
            "task.max_length",
            f"{max_length} leaves no room for a prompt before {task.max_new_tokens} new "
            "tokens; raise max_length or lower max_new_tokens",
            value=max_length,
        )


def build(
    task: RowSource,
    tokenizer_folder: str | Path,
    *,
    proxy: float,
    seed: int,
    validation_rows: int | None,
    max_length: int,
    system: str | None = None,
    chat_template: bool = True,
    train_on: Literal["all", "last"] = "all",
    truncate: Literal["drop", "left", "right"] = "drop",
    control_tokens: bool | None = None,
    texts: bool = False,
    allow_broken: bool | float = False,
    quiet: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Load, split, tokenise and subset the rows of `task`. Starts a local Ray where none is running.

    Args:
        task: where the rows come from. Its `train_rows` and `test_rows`, where set, bound a split by a seeded
            sample; `train_rows` counts the validation rows carved from train too.
        tokenizer_folder: local folder with the tokenizer's files.
        proxy: fraction of train, in (0, 1], that trials train on.
        seed: of the draws of validation, proxy and a bounded train (not of test: see `split`).
        validation_rows: size of validation, by default 64 or a fifth of fewer than 320 rows; a source with its own
            validation split may have fewer.
        max_length: longest prompt + response in tokens. Longer rows are dropped from train (unless `truncate` cuts
            them); validation and test rows are dropped where the prompt leaves no room for `task.max_new_tokens`.
        system: system message; "" is an empty one, None leaves the chat template to its default.
        chat_template: whether to use the tokenizer's chat template, if it has one.
        train_on, truncate, control_tokens, texts: see `tokenise.Tokenising`.
        allow_broken: share of rows of a split that may be unusable, or True for any; False is 5 %.
        quiet: no progress bars.
        say: is told in lines how far it is.

    Raises:
        UserError: an argument out of range, rows that the task cannot read, or a split that comes out empty.
    """
    _check(task, proxy, validation_rows, max_length)
    sources = task.splits()
    how = Tokenising(system, chat_template, train_on, control_tokens, truncate, texts=texts)
    settings = _settings(task, tokenizer_folder, how, max_length, allow_broken, quiet, say)

    def pool(name: str) -> TokenPool:
        return TokenPool(name, sources[name], settings)

    train_pool = pool("train")
    own_validation = pool("validation") if "validation" in sources else None
    named = [name for name in sources if name.partition(".")[0] == "test"]
    parts = split(
        train_pool,
        own_validation,
        carve_test=not named,
        task=task,
        seed=seed,
        validation_rows=validation_rows,
        max_length=max_length,
    )
    problems, notes = _problems([train_pool, *filter(None, [own_validation])], allow_broken)
    if own_validation is None and validation_rows is not None and len(parts.validation) < validation_rows:
        few = len(parts.train) + len(parts.validation)
        notes.append(f"{len(parts.validation)} rows validate, not {validation_rows}, as there are {few} to train with")
    chosen = parts.train[proxy_rows(len(parts.train), proxy, seed)]
    proxy_tokens = int((train_pool.prompts[chosen].astype(np.int64) + train_pool.responses[chosen]).sum())
    counts = parts.counts | problems | {"proxy": len(chosen), "proxy_tokens": proxy_tokens}

    @cache
    def test(name: str) -> Test:
        if parts.test is None:
            own = pool(name)
            rows, found = _tested(own, task, max_length, settings)
        else:
            own, rows, found = train_pool, parts.test, {"test": len(parts.test), "test_dropped_too_long": 0}
            if not len(rows):
                raise _none_left(own, max_length, name)
        repeated = int(among(own.keys[rows], train_pool.keys[parts.train]).sum())
        return own.rows(rows), found | {"test_prompts_in_train": repeated}

    train = train_pool.rows(parts.train)
    validation = (own_validation or train_pool).rows(parts.validation)
    proxy_part = train if len(chosen) == len(parts.train) else train_pool.rows(chosen)
    return Prepared(
        train, proxy_part, validation, {name: partial(test, name) for name in named or ["test"]}, counts, notes
    )


def build_tests(
    task: RowSource,
    tokenizer_folder: str | Path,
    names: Sequence[str],
    how: Tokenising,
    *,
    max_length: int,
    allow_broken: bool | float = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Test]:
    """These splits of `task` alone, each read as a test set is; no other is. Starts a local Ray where none is running.

    Args:
        names: keys of `task.splits()`.
        how: of the rendering; the lengths of `truncate` are filled in, and the positions where it has none.
        max_length, allow_broken, say: see `build`.

    Raises:
        UserError: rows that the task cannot read, or a split that comes out empty.
    """
    sources, settings = task.splits(), _settings(task, tokenizer_folder, how, max_length, allow_broken, True, say)
    found: dict[str, Test] = {}
    for name in names:
        own = TokenPool(name, sources[name], settings)
        rows, counts = _tested(own, task, max_length, settings)
        found[name] = own.rows(rows), counts
    return found


def _settings(
    task: RowSource,
    tokenizer_folder: str | Path,
    how: Tokenising,
    max_length: int,
    allow_broken: bool | float,
    quiet: bool,
    say: Callable[[str], None],
) -> _Settings:
    import ray

    tokenizer = tokenizer_files(Path(tokenizer_folder))
    if how.truncate != "drop":
        how = replace(how, max_length=max_length, max_new_tokens=task.max_new_tokens)
    how = replace(how, positions=how.positions or model_positions(tokenizer))
    return _Settings(
        tokenise=partial(tokenise, files=ray.put(tokenizer), how=how),
        identity=(code_hash(task), task_hash(task)),
        tokens=(tokenizer_hash(tokenizer), repr(how)),
        shared=folder_is_shared(cache_root()),
        allow_broken=allow_broken,
        quiet=quiet,
        say=say,
    )


def _tested(own: TokenPool, task: RowSource, max_length: int, settings: _Settings) -> tuple[np.ndarray, dict[str, int]]:
    """The positions of the rows of a test set of its own, and their counts; what is wrong with others is told.

    Raises:
        UserError: too many rows cannot be used, or none is left.
    """
    room = max_length - task.max_new_tokens
    rows = test_rows(own, task.test_rows, room)
    found, told = _problems([own], settings.allow_broken)
    for note in told:
        settings.say(f"data: {note}")
    if not len(rows):
        raise _none_left(own, max_length, own.name)
    too_long = int((own.usable & (own.prompts > room)).sum())
    return rows, found | {"test": len(rows), "test_dropped_too_long": too_long}


def _none_left(own: TokenPool, max_length: int, name: str) -> UserError:
    return UserError.at(
        "task.max_length", f"{max_length} leaves no {name} row of {own.count}; raise max_length", value=max_length
    )


def _problems(pools: list[TokenPool], allow_broken: bool | float) -> tuple[dict[str, int], list[str]]:
    """Counts of unusable rows by split and reason, and lines that tell of them.

    Raises:
        UserError: more of a split is unusable than allowed.
    """
    notes: list[str] = []
    for pool in pools:
        pool.problems.check(pool.name, allow_broken)
        notes += filter(None, [pool.told, pool.problems.told(pool.name)])
    return dropped({pool.name: pool.problems for pool in pools}), notes
