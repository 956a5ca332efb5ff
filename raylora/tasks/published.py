"""Tasks on published data: a local copy as it is published, or the hub's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from raylora.data.columns import Own
from raylora.data.conversation import Columns
from raylora.data.files import is_hub_id
from raylora.data.readers import format_of
from raylora.data.rows import Source
from raylora.data.sources import FileSource, Read, open_source, open_splits
from raylora.errors import UserError
from raylora.tasks.base import Task, check_positive
from raylora.tasks.prompts import check_form


@dataclass(frozen=True)
class Published:
    """A data set as it is published.

    Attributes:
        needs: sets of columns, of which a file has one.
        make: a raw row and the form of its prompt (see `prompts.FORMS`) to a normalised row.
        hub: sources on the hub by split, as a spec names them.
        folders: what a local copy may be called below `task.path`: a folder, or a file without its ending.
    """

    needs: tuple[tuple[str, ...], ...]
    make: Callable[[Mapping[str, object], str], Columns]
    hub: Mapping[str, object]
    folders: tuple[str, ...] = ()

    def reading(self, task: str, form: str, columns: Mapping[str, str] | None) -> Read:
        """How its files are read."""
        own = Own("template", make=partial(_made, make=self.make, form=form), needs=self.needs, renamed=columns or {})
        return Read(task, own=own)

    def below(self, path: str) -> str | None:
        """Its local copy in a folder; None where there is none."""
        folder = Path(path).expanduser()
        for name in self.folders:
            if (folder / name).is_dir():
                return str(folder / name)
            files = sorted(file for file in folder.glob(f"{name}.*") if file.is_file() and format_of(file.name))
            if files:
                return str(files[0])
        return None


def _made(raw: Mapping[str, object], *, make: Callable[[Mapping[str, object], str], Columns], form: str) -> Columns:
    return make(raw, form)


class PublishedTask(Task):
    """A task on published data.

    Args:
        path: the local copy: see docs/tasks.md for its form. Default: the hub's.
        train, validation, test, test_sets: sources of these, apart from `path`: see `raylora.data.sources.wanted`.
        columns: published column -> the file's, where they differ; of train and validation where test sets have names.
        form: of the prompt: `plain`, or `alpaca` for Alpaca's frame around it (best with `chat_template: false`).
        train_rows, test_rows: bounds on the splits; None for all rows.
        max_new_tokens: longest completion to generate, in tokens.

    Attributes:
        data: what train and validation are of, and test where there are no named test sets; None: rows of one's own,
            recognised by their columns.
        sets: the named test sets that it has.
        longest: `max_new_tokens`, where nothing is said.
    """

    data: ClassVar[Published | None] = None
    sets: ClassVar[Mapping[str, Published]] = {}
    longest: ClassVar[int] = 64

    def __init__(
        self,
        *,
        path: str | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        test_sets: Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
        form: str = "plain",
        train_rows: int | None = None,
        test_rows: int | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        for field, value in (
            ("train_rows", train_rows), ("test_rows", test_rows), ("max_new_tokens", max_new_tokens)
        ):  # fmt: skip
            check_positive(field, value)
        check_form(form)
        self.path, self.form, self.columns = None if path is None else str(path), form, dict(columns or {})
        self.train_rows, self.test_rows = train_rows, test_rows
        self.max_new_tokens = max_new_tokens or self.longest
        own = {"train": train, "validation": validation, "test": test}
        self._open = self._opened(own, dict(test_sets or {}))
        self.test_sets = tuple(split.partition(".")[2] for split in self._open if split.startswith("test."))

    def splits(self) -> dict[str, Source]:
        return dict(self._open)

    def published(self) -> Published | None:
        """What train and validation are of; see `data`."""
        return self.data

    def _reading(self, data: Published | None) -> Read:
        return (
            Read(self.name, self.columns or None) if data is None else data.reading(self.name, self.form, self.columns)
        )

    def _opened(self, own: dict[str, Any], test_sets: dict[str, Any]) -> dict[str, FileSource]:
        if self.sets:
            return self._several(own, test_sets)
        data = self.published()
        named = {f"test.{name}": value for name, value in test_sets.items()}
        if self.path is None and data is not None:
            own = {split: value or data.hub.get(split) for split, value in own.items()}
        if self.path is None and own["train"] is None:
            raise UserError.at("task.path", f"{self.name} needs it; set task.path, or task.train")
        return open_splits(self.path, own={**own, **named}, reading=self._reading(data))

    def _several(self, own: dict[str, Any], test_sets: dict[str, Any]) -> dict[str, FileSource]:
        if own["test"] is not None:
            raise UserError.at(
                "task.test",
                f"{self.name} has test sets with names; give task.test_sets, such as {{{next(iter(self.sets))}: PATH}}",
                value=self.name,
            )
        for name in test_sets:
            if name not in self.sets:
                raise UserError.at(
                    f"task.test_sets.{name}",
                    f"{self.name} has no such test set; it has {', '.join(self.sets)}",
                    value=test_sets[name],
                    allowed=list(self.sets),
                )
        data = self.published()
        train = own["train"] or self._train()
        found = {"train": open_source("task.train", train, "train", self._reading(data))}
        if own["validation"] is not None:
            found["validation"] = open_source("task.validation", own["validation"], "validation", self._reading(data))
        for name, value in (test_sets or self._tests()).items():
            found[f"test.{name}"] = open_source(
                f"task.test_sets.{name}", value, "test", self.sets[name].reading(self.name, self.form, None)
            )
        return found

    def _train(self) -> Any:
        """Where train comes from, where no field of its own says so."""
        data = self.published()
        if self.path is not None:
            return (data.below(self.path) if data is not None and self._is_local() else None) or self.path
        if data is None or "train" not in data.hub:
            raise UserError.at("task.path", f"{self.name} needs it; set task.path, or task.train")
        return data.hub["train"]

    def _tests(self) -> dict[str, object]:
        """Where the test sets come from, where `task.test_sets` does not say so."""
        if self.path is None or is_hub_id(self.path):
            found = {name: one.hub.get("test") for name, one in self.sets.items()}
        else:
            found = {name: one.below(self.path) for name, one in self.sets.items()}
        found = {name: place for name, place in found.items() if place is not None}
        if not found:
            wanted = ", ".join(self.sets)
            raise UserError.at(
                "task.test_sets",
                f"{self.name} measures {wanted}; give their files, such as "
                f"{{{next(iter(self.sets))}: PATH}}, or a task.path with folders of these names",
                allowed=list(self.sets),
            )
        return found

    def _is_local(self) -> bool:
        return self.path is not None and Path(self.path).expanduser().is_dir()
