"""Where rows come from: the sources that a spec names, their slices and mixes, as normalised rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.data.columns import Form, Own, recognise
from raylora.data.conversation import problem_row
from raylora.data.files import SPLITS, find_splits, first_line, hub_files, hub_package, hub_splits, is_hub_id
from raylora.data.problems import where
from raylora.data.readers import Numbered, Part, class_names, format_of, is_url, plan, read, reads_in_part
from raylora.data.rows import row_table
from raylora.errors import UserError
from trainables.classifier import label_order

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

Finish = Callable[["pa.Table"], "pa.Table"]

_SLICE = re.compile(r"(\w+)((\[[^\]]*\])?(\+\w+(\[[^\]]*\])?)*)")
_KEYS = ("path", "split", "name", "weight")
_MIX_SEED = 0
_SAMPLE = 200
_FORMS_AT_MOST = 64
_ROWS_PER_TABLE = 1024
# Labels are listed in the prompt where they are few and short; so many rows are looked at for them.
_LABELS_AT_MOST, _LABEL_LENGTH, _LABEL_ROWS = 20, 60, 200_000


@dataclass(frozen=True)
class Wanted:
    """One source as a spec names it.

    Attributes:
        path: file, folder, glob, URL or hub id.
        split: `train`, `validation`, `test`, a hub split, or a slice such as `train[:10%]`; None for the default.
        name: configuration of a hub dataset, or a sub-folder of a folder that has several.
        weight: share in a mix, relative to the weights of the other sources; None without.
    """

    path: str
    split: str | None = None
    name: str | None = None
    weight: float | None = None


def wanted(field: str, value: object, path: str | None = None, name: str | None = None) -> list[Wanted]:
    """The sources that a spec's field means: a string, a mapping, or a list of these.

    Args:
        field: for messages, such as `task.train`.
        path, name: `task.path` and its configuration, which a bare split (`train[:80%]`) is a part of.

    Raises:
        UserError: another form, an unknown key, or weights on some of the sources only.
    """
    items = value if isinstance(value, list) else [value]
    found = [_wanted(field, item, path, name) for item in items]
    if not found:
        raise UserError.at(field, "an empty list; give a source, or leave the field out", value=[])
    weights = [one.weight for one in found]
    if any(weights) and not all(weights):
        raise UserError.at(
            field, "some sources have a weight and some have none; give all of them one, or none", value=value
        )
    return found


def _wanted(field: str, item: object, path: str | None, name: str | None) -> Wanted:
    if isinstance(item, str):
        part = _SLICE.fullmatch(item)
        if path is not None and part and (item in SPLITS or "[" in item):
            return Wanted(path, item, name)
        return Wanted(item)
    if not isinstance(item, Mapping):
        raise UserError.at(
            field, f"{item!r}; allowed: a path, a mapping with path, split, name and weight, or a list", value=item
        )
    unknown = set(item) - set(_KEYS)
    if unknown:
        key = min(unknown)
        raise UserError.at(
            f"{field}.{key}", f"no such key; allowed: {', '.join(_KEYS)}", value=item[key], allowed=_KEYS
        )
    weight = item.get("weight")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0):
        raise UserError.at(f"{field}.weight", f"{weight!r}; allowed: a number above 0", value=weight)
    chosen = item.get("path", path)
    if chosen is None:
        raise UserError.at(f"{field}.path", "missing; give a file, a folder or a hub id")
    return Wanted(str(chosen), item.get("split"), item.get("name", name), None if weight is None else float(weight))


@dataclass(frozen=True, eq=False)
class Read:
    """Options of reading that are the same for all files of a task; see `columns.recognise`."""

    task: str = "instruct"
    columns: Mapping[str, str] | None = None
    template: str | None = None
    response_column: str | None = None
    labels: Mapping[object, str] | None = None
    finish: Finish | None = None
    own: Own | None = None


class FileSource:
    """A split as normalised rows, in the order of its sources and files (a `rows.Source`).

    Calling it gives a Ray dataset. Nothing is read before `parts`, `tables`, `told` or a call asks for it.

    Args:
        sources: pairs of what the spec named and the files of that.
        reading: see `Read`.

    Attributes:
        labels_from: the split whose labels the prompts of labelled rows list; None where they list none.
    """

    def __init__(self, sources: Sequence[tuple[Wanted, Callable[[], list[str]]]], reading: Read) -> None:
        self.sources, self.reading = list(sources), reading
        self.labels_from: FileSource | None = None

    @cached_property
    def parts(self) -> list[Part]:
        """All parts, slices and mixes applied."""
        pieces = [self._parts(one, files()) for one, files in self.sources]
        weights = [one.weight for one, _ in self.sources]
        return [part for piece in (_mixed(pieces, weights) if all(weights) else pieces) for part in piece]

    def _parts(self, one: Wanted, files: Sequence[str]) -> list[Part]:
        slices = (one.split or "").partition("[")[1]
        parts = [part for file in files for part in plan(file, count=bool(slices) or one.weight is not None)]
        return _sliced(parts, one.split or "", one.path) if slices else parts

    @cached_property
    def forms(self) -> dict[str, Form]:
        """How each file is read; of very many files those behind the first ones are read as the first."""
        labelled = any(form.kind == "labelled" for form in self._recognised.values())
        listed = self.labels_from.labels if labelled and self.labels_from is not None else ()
        return {
            file: replace(form, listed=listed) if form.kind == "labelled" else form
            for file, form in self._recognised.items()
        }

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The different labels of labelled rows, numbers by their size before words; empty unless few and short."""
        found: set[str] = set()
        rows = 0
        for part in self.parts:
            form = self._recognised.get(part.file)
            if form is None or form.kind != "labelled":
                continue
            for _, raw in islice(read(part), _LABEL_ROWS - rows):
                label = None if isinstance(raw, str) else form.label_of(raw)
                if label is None or not label.strip():
                    continue
                rows += 1
                found.add(label)
                if len(found) > _LABELS_AT_MOST or len(label) > _LABEL_LENGTH:
                    return ()
        # As many labels as rows are no labels.
        return tuple(sorted(found, key=label_order)) if len(found) > 1 and (len(found) < rows or rows == 2) else ()

    @cached_property
    def _recognised(self) -> dict[str, Form]:
        forms: dict[str, Form] = {}
        for part in self.parts:
            if part.file in forms:
                continue
            if len(forms) >= _FORMS_AT_MOST:
                forms[part.file] = next(iter(forms.values()))
                continue
            first = islice(read(replace(part, chosen=None)), _SAMPLE)
            sample = [row for _, row in first if not isinstance(row, str)]
            if sample:
                forms[part.file] = self._form(part, sample)
        if not forms:
            raise self._none_readable()
        return forms

    def check(self) -> list[dict[str, Any]]:
        """Holds the first rows of the first file of each source against how they are to be read, and no others.

        A source is passed over where that is not cheap, or says nothing of the rest: on the hub, behind a URL, in a
        large file that has to be read whole, or in parts of several files.

        Returns:
            These rows as normalised ones, those that can be used.

        Raises:
            UserError: as `forms`.
        """
        found: list[dict[str, Any]] = []
        for one, files in self.sources:
            if is_hub_id(one.path) or is_url(one.path):
                continue
            there = files()
            known = format_of(there[0]) if there else None
            if known is None or (len(there) > 1 and "[" in (one.split or "")) or not reads_in_part(there[0]):
                continue
            part = Part(there[0], *known)
            first = list(islice(read(part), _SAMPLE))
            sample = [row for _, row in first if not isinstance(row, str)]
            if sample:
                table = _table(first, self._form(part, sample), _shown(part.file), self.reading.finish)
                found += [row for row in table.to_pylist() if row["problem"] is None]
            elif len(there) == len(self.sources) == 1:
                raise self._none_readable()
        return found

    def _form(self, part: Part, sample: Sequence[Mapping[str, object]]) -> Form:
        options = self.reading
        if options.own is not None:
            return options.own.fitted(sample, options.task)
        return recognise(
            sample,
            task=options.task,
            columns=options.columns,
            template=options.template,
            response_column=options.response_column,
            labels=options.labels,
            classes=class_names(part),
        )

    def _none_readable(self) -> UserError:
        files = sorted({part.file for part in self.parts})
        told = f"no row can be read in {', '.join(files[:3]) or 'the files'}; {self._why()}"
        return UserError.at("task.path", told)

    def _why(self) -> str:
        for part in self.parts:
            for number, row in read(part):
                if isinstance(row, str):
                    return f"{row.partition(': ')[2] or row} at {where(_shown(part.file), number)}"
        return "it is empty"

    @property
    def told(self) -> str:
        """What was recognised, in one line."""
        kinds: dict[str, list[str]] = {}
        for file, form in self.forms.items():
            kinds.setdefault(form.told, []).append(_shown(file))
        return "; ".join(f"{told} in {_listed(files)}" for told, files in kinds.items())

    def input_files(self) -> list[str]:
        """The files that are read."""
        return list(dict.fromkeys(part.file for part in self.parts))

    def identity(self) -> str:
        """What of the files is read, and how: with the files' content it decides the rows."""
        chosen = [(part.file, part.start, None if part.chosen is None else part.chosen.tolist()) for part in self.parts]
        files = self.input_files()
        places = [(files.index(file), start, which) for file, start, which in chosen if which is not None]
        return repr((places, [form for _, form in sorted(self.forms.items())]))

    def tables(self) -> Iterator[pa.Table]:
        """The normalised rows, here and now."""
        for part in self.parts:
            yield from normalised(part, self.forms, self.reading.finish)

    def __call__(self) -> ray.data.Dataset:
        import ray
        import ray.data

        forms = self.forms
        if any(is_hub_id(one.path) for one, _ in self.sources) and sum(node["Alive"] for node in ray.nodes()) > 1:
            # The hub's cache is this node's alone.
            return ray.data.from_arrow(list(self.tables()))
        parts = [part for part in self.parts if part.rows != 0 and part.file in forms]
        return ray.data.from_items(parts, override_num_blocks=max(1, len(parts))).map_batches(
            partial(_read_parts, forms=forms, finish=self.reading.finish), batch_format="numpy", batch_size=1
        )


def _read_parts(batch: Mapping[str, Any], forms: Mapping[str, Form], finish: Finish | None) -> Iterator[pa.Table]:
    for part in batch["item"]:
        yield from normalised(part, forms, finish)


def normalised(part: Part, forms: Mapping[str, Form], finish: Finish | None = None) -> Iterator[pa.Table]:
    """The rows of a part as tables of normalised rows; those that cannot be used have a `problem`."""
    form, shown = forms.get(part.file) or next(iter(forms.values())), _shown(part.file)
    rows = read(part)
    while several := list(islice(rows, _ROWS_PER_TABLE)):
        yield _table(several, form, shown, finish)


def _table(rows: Sequence[Numbered], form: Form, shown: str, finish: Finish | None) -> pa.Table:
    columns: dict[str, list[object]] = {}
    done = [problem_row(raw) if isinstance(raw, str) else form.normalise(raw) for _, raw in rows]
    for name in ("prompt", "response", "answer", "metadata", "conversation", "problem"):
        columns[name] = [_storable(row.get(name)) for row in done]
    columns["source_file"] = [shown] * len(rows)
    columns["source_row"] = [number for number, _ in rows]
    table = row_table(columns)
    return table if finish is None else finish(table)


def _storable(text: str | None) -> str | None:
    """Without lone surrogates, which JSON can spell and no encoding has."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def _shown(file: str) -> str:
    """A file's name for messages: relative where it lies below this folder."""
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if not is_url(file) and Path(file).is_relative_to(here) else file


def _listed(files: Sequence[str]) -> str:
    return ", ".join(files[:2]) + (f" and {len(files) - 2} more" if len(files) > 2 else "")


def _sliced(parts: Sequence[Part], split: str, path: str) -> list[Part]:
    """The rows of `train[:10%]`, as the package datasets counts them."""
    total = sum(part.rows or 0 for part in parts)
    names = {found.group(1) for found in _SLICE.finditer(split)}
    try:
        steps = hub_package(path).ReadInstruction.from_spec(split).to_absolute(dict.fromkeys(names, total))
    except (ValueError, AssertionError, AttributeError, KeyError) as error:
        raise UserError.at("split", f"{split!r} of {path!r} ({total} rows): {first_line(error)}", value=split) from None
    found = []
    for step in steps:
        found += _chosen(parts, np.arange(step.from_ or 0, total if step.to is None else step.to))
    return found


def _chosen(parts: Sequence[Part], rows: np.ndarray) -> list[Part]:
    """The parts that hold these rows (ascending positions in all of them), each with its own."""
    found, begin = [], 0
    for part in parts:
        end = begin + (part.rows or 0)
        inside = rows[(rows >= begin) & (rows < end)] - begin
        if len(inside):
            earlier = np.arange(part.rows or 0) if part.chosen is None else part.chosen
            found.append(replace(part, chosen=earlier[inside], rows=len(inside)))
        begin = end
    return found


def _mixed(pieces: Sequence[list[Part]], weights: Sequence[float | None]) -> list[list[Part]]:
    """So many rows of each source, drawn, that their shares are those of the weights and no row comes twice."""
    counts = [sum(part.rows or 0 for part in piece) for piece in pieces]
    shares = np.array([weight or 0.0 for weight in weights]) / sum(weight or 0.0 for weight in weights)
    total = min(count / share for count, share in zip(counts, shares, strict=True))
    mixed = []
    for stream, (piece, count, share) in enumerate(zip(pieces, counts, shares, strict=True)):
        size = min(count, round(total * share))
        mixed.append(_chosen(piece, np.sort(np.random.default_rng([_MIX_SEED, stream]).permutation(count)[:size])))
    return mixed


def open_splits(
    path: str | None,
    config: str | None = None,
    *,
    own: Mapping[str, object] | None = None,
    reading: Read | None = None,
) -> dict[str, FileSource]:
    """Split -> its rows; nothing of them is read before one is asked.

    Args:
        path: see `find_splits`, or a hub dataset id `org/name`. A local path must be readable on every node.
        config: configuration of a hub dataset, or a sub-folder.
        own: split -> what the spec says of it instead (see `wanted`).
        reading: how rows are read.

    Raises:
        UserError: nothing there, no train split, or a format that is not read.
    """
    reading = reading or Read()
    found: dict[str, FileSource] = {}
    stated = {split: wanted(f"task.{split}", value, path, config) for split, value in (own or {}).items() if value}
    if path is not None:
        for split, files in _files(path, config, train="train" not in stated).items():
            if split in SPLITS:
                found[split] = FileSource([(Wanted(path, None, config), files)], reading)
    for split, sources in stated.items():
        field = f"task.test_sets.{split.partition('.')[2]}" if "." in split else f"task.{split}"
        found[split] = FileSource([(one, _files_of(one, split, field, path)) for one in sources], reading)
    if any(split.startswith("test.") for split in found):
        found.pop("test", None)
    if "train" not in found:
        raise UserError.at("task.path", "missing, and task.train too; give one of them")
    return found


def open_source(field: str, value: object, split: str, reading: Read) -> FileSource:
    """One split on its own, from what a spec says of it (see `wanted`); there need be no other.

    Raises:
        UserError: nothing there, or a format that is not read.
    """
    return FileSource([(one, _files_of(one, split, field)) for one in wanted(field, value)], reading)


def split_names(path: str, name: str | None = None) -> list[str]:
    """The splits of a source, as `open_splits` takes it; there need be no train.

    Raises:
        UserError: nothing there that can be read.
    """
    return list(_files(path, name, train=False))


def _files(path: str, name: str | None, *, train: bool = True) -> dict[str, Callable[[], list[str]]]:
    if is_hub_id(path):
        found = hub_splits(path, name, train=train)
        return {split: partial(hub_files, path, name, real) for split, real in found.items()}
    return {split: partial(list, files) for split, files in find_splits(path, name, train=train).items()}


def _files_of(one: Wanted, split: str, field: str, path: str | None = None) -> Callable[[], list[str]]:
    """The files of a source that stands for a split: of that split where it has one, of the one named, or train.

    Args:
        field: where the spec names the source, for messages, unless it is a part of `path`, which is task.path.
    """
    split = split.partition(".")[0]
    try:
        there = _files(one.path, one.name, train=split == "train" and one.split is None)
    except UserError as error:
        if error.field != "task.path" or one.path == path or is_hub_id(one.path):
            raise
        told = error.message.removeprefix("task.path: ")
        raise UserError.at(field, told, value=error.value, allowed=error.allowed) from None
    named = None if one.split is None else _SLICE.fullmatch(one.split)
    if one.split is not None and named is None:
        raise UserError.at(
            f"{field}.split",
            f"{one.split!r}; allowed: a split such as train, or a part as train[:10%]",
            value=one.split,
        )
    if named is None:
        return there.get(split) or there.get("train") or next(iter(there.values()))
    wanted_split = named.group(1)
    if wanted_split not in there:
        raise UserError.at(
            f"{field}.split",
            f"{one.path!r} has no split {wanted_split!r}; it has {', '.join(there)}",
            value=one.split,
            allowed=list(there),
        )
    return there[wanted_split]
