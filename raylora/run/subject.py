"""What is to be scored, told by its name: a run, an adapter from anywhere, or a whole model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raylora import models
from raylora.errors import UserError
from raylora.run.checkpoint import check_checkpoint
from raylora.run.folder import RUN_MARK, no_adapter, read_run
from raylora.run.stored import fetch_results, is_stored, working_copy
from trainables.variants.core.tuned import ABOUT

CONFIG = "adapter_config.json"
# PEFT's methods that put virtual tokens before the prompt: what is decoded then has other positions.
_PROMPTED = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "ADAPTION_PROMPT")


@dataclass(frozen=True)
class Subject:
    """A model, or an adapter over one.

    Attributes:
        name: as it was asked for.
        base: the model, as `raylora.models.resolve` takes it, and `folder` where it lies on this node.
        adapter: the folder of the adapter; None for a whole model.
        run: the folder of the run that it is the answer of.
    """

    name: str
    kind: Literal["run", "adapter", "model"]
    base: str
    folder: Path
    adapter: Path | None = None
    run: Path | None = None

    @property
    def tokenizer(self) -> Path:
        """The folder of its tokenizer: the adapter's own where it has one, as trainers save it."""
        own = self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file()
        return self.adapter if own and self.adapter else self.folder


def find_subject(name: str, base: str | None = None, *, quiet: bool = False) -> Subject:
    """What `name` means: a run's folder, a folder or hub id of an adapter, or a model.

    Args:
        base: the base model of an adapter, instead of the one that it names.

    Raises:
        UserError: no such thing, a run without an adapter, an adapter that cannot be scored or whose base is not here.
    """
    folder = working_copy(name, RUN_MARK) if is_stored(name) else Path(name).expanduser()
    if (folder / RUN_MARK).is_file():
        run, spec = read_run(folder)
        fetch_results(run)
        adapter = run / "adapter"
        if not any((adapter / file).is_file() for file in (CONFIG, ABOUT)):
            raise UserError.at("MODEL", no_adapter(run, spec), value=name)
        return _over_base(Subject(name, "run", base or spec.model, folder, adapter, run), given=base, quiet=quiet)
    place: Path | None = folder
    if not folder.is_dir():
        place = models.adapter_from_hub(name, quiet=quiet)
    if place is not None and any((place / file).is_file() for file in (CONFIG, ABOUT)):
        named = base or _base_of(name, place)
        return _over_base(Subject(name, "adapter", named, folder, place.absolute()), given=base, quiet=quiet)
    if base is not None:
        raise UserError(
            f"--base = {base!r}: {name!r} is no adapter but a model, which needs none; leave --base out",
            field="--base",
            value=base,
        )
    return _over_base(Subject(name, "model", name, folder), given=name, quiet=quiet)


def _over_base(subject: Subject, *, given: str | None, quiet: bool) -> Subject:
    """The subject with the folder of its base."""
    try:
        folder = models.resolve(subject.base, quiet=quiet)
    except UserError as error:
        if given is not None:
            raise
        raise UserError(
            f"--base: missing; {subject.name} names {subject.base!r} as its base, which cannot be had here "
            f"({error.message.removeprefix('model: ')}); give the base with --base",
            field="--base",
            value=subject.base,
        ) from None
    check_checkpoint(subject.base, folder, head="any")
    return Subject(subject.name, subject.kind, subject.base, folder, subject.adapter, subject.run)


def _base_of(name: str, folder: Path) -> str:
    """What an adapter's configuration names as its base, once it is one that can be scored."""
    file = folder / (CONFIG if (folder / CONFIG).is_file() else ABOUT)
    try:
        told: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError.at(
            "MODEL", f"{file} cannot be read ({error}); give an adapter that PEFT saved", value=str(file)
        ) from None
    named = told.get("base_model_name_or_path") if isinstance(told, dict) else None
    if not isinstance(named, str) or not named:
        raise UserError(f"--base: missing; {name} names no base model; give it with --base", field="--base")
    return named


def check_adapter(subject: Subject, head: str = "language", quantization: str = "none") -> None:
    """Refuses adapters of PEFT that answers cannot be had with, and what was trained for another head.

    Args:
        head, quantization: `task.head` and `quantization` of the spec.

    Raises:
        UserError: one line.
    """
    check_checkpoint(subject.base, subject.folder, head, quantization)
    file = None if subject.adapter is None else subject.adapter / CONFIG
    if file is None or not file.is_file():
        return
    told = json.loads(file.read_text(encoding="utf-8"))
    kind, task = str(told.get("peft_type", "")).upper(), told.get("task_type")
    if kind in _PROMPTED:
        raise UserError(
            f"MODEL: {subject.name} is a {kind} adapter, which adds virtual tokens; allowed: adapters of a model's "
            "weights, such as LoRA",
            field="MODEL",
            value=kind,
        )
    wanted = ("CAUSAL_LM", "language models") if head == "language" else ("SEQ_CLS", "classifiers")
    if task not in (None, wanted[0]):
        remedy = "; set task.head = classifier" if task == "SEQ_CLS" else ""
        raise UserError(
            f"MODEL: {subject.name} is an adapter for {task}; allowed: adapters of {wanted[1]}{remedy}",
            field="MODEL",
            value=task,
        )
