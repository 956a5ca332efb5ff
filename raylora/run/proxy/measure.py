"""`raylora proxy`: the same recipes trained on parts of the rows and on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.build import refuse_head, train_settings
from raylora.cluster import connected
from raylora.errors import UserError
from raylora.progress import Progress
from raylora.run.folder import archive_attempt, clear_workings
from raylora.run.interrupt import interruptible
from raylora.run.prepare import Run, prepare, stop_actors
from raylora.run.proxy.features import KeptFeatures
from raylora.run.proxy.figures import figures
from raylora.run.proxy.record import (
    MARK,
    Part,
    Record,
    endings,
    measurement_folder,
    read_record,
    write_record,
)
from raylora.run.proxy.selectors import SELECTORS, select
from raylora.run.state import held
from raylora.run.trouble import logged_apart, told_in_one_line
from raylora.spec import Spec
from raylora.spec.model import SearchSpec
from raylora.spec.text import choose
from trainables.journal import Knobs

if TYPE_CHECKING:
    from searchers.space import Space

# A correlation of fewer says nothing.
LEAST_RECIPES = 3
# Of the draw of the recipes, apart from others of the seed.
_STREAM = 7


def measure_proxies(
    spec: Spec, fractions: Sequence[float], recipes: int, selectors: Sequence[str], *, quiet: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Trains what is missing of the measurement of this spec; returns its folder and its figures.

    The recipes are drawn once, uniformly from the space as the model can have it, by the spec's seed: more of them
    include the fewer. Every recipe is trained as a trial of a run, with `task.proxy` the fraction and without early
    stopping. Each part of the rows has a journal of its own below the folder: what is there is not trained again, and
    what was interrupted goes on from its checkpoint.

    Args:
        fractions: of the train rows; all are compared with the largest.
        recipes: how many; fewer where the space has no more.
        selectors: names of `SELECTORS`; the largest fraction is drawn at random.

    Returns:
        Folder and figures; see `figures.figures`.

    Raises:
        UserError: an argument out of range, a spec that cannot be trained, or rows that are others than they were.
    """
    parts = parts_of(fractions, selectors)
    if recipes < LEAST_RECIPES:
        raise UserError.at("--recipes", f"{recipes}; allowed: at least {LEAST_RECIPES}", value=recipes)
    if "loss" in selectors:
        refuse_head(spec, "--select loss asks for the loss of a language model")
    folder = measurement_folder(spec)
    known = read_record(folder)
    if known is None or _missing(folder, known, parts, recipes):
        _train(_measured(spec, recipes), folder, parts, recipes, quiet)
        known = read_record(folder)
    assert known is not None
    return folder, figures(folder, known, parts, known.recipes[:recipes])


def parts_of(fractions: Sequence[float], selectors: Sequence[str]) -> list[Part]:
    """The parts of the rows to train on, the smallest first; the last one is the reference.

    Raises:
        UserError: fewer than two fractions, one outside (0, 1], or an unknown selector.
    """
    told = ",".join(f"{fraction:g}" for fraction in fractions)
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise UserError.at("--fractions", f"{told}; allowed: above 0, at most 1", value=list(fractions))
    ordered = sorted(set(fractions))
    if len(ordered) < 2:
        raise UserError.at("--fractions", f"{told}; allowed: at least two, such as 0.1,1", value=list(fractions))
    for name in selectors:
        if name not in SELECTORS:
            raise UserError.at(
                "--select",
                f"{name!r}: no such selector; {choose(name, list(SELECTORS))}",
                value=name,
                allowed=list(SELECTORS),
            )
    if not selectors:
        raise UserError.at("--select", f"none; allowed: {', '.join(SELECTORS)}", allowed=list(SELECTORS))
    *smaller, largest = ordered
    return [Part(name, fraction) for fraction in smaller for name in dict.fromkeys(selectors)] + [
        Part("random", largest)
    ]


def _missing(folder: Path, known: Record, parts: Sequence[Part], recipes: int) -> bool:
    """Whether a recipe has to be drawn, or trained on one of the parts."""
    if len(known.recipes) < min(recipes, known.possible):
        return True
    return any(None in endings(folder, part, known.recipes[:recipes]) for part in parts)


def _measured(spec: Spec, recipes: int) -> Spec:
    """The spec with all train rows at hand, every recipe to its end, and nothing after the trials."""
    search = SearchSpec(
        searcher="random", objective=spec.search.objective, trials=recipes, max_failures=spec.search.max_failures
    )
    changes: dict[str, object] = {
        "task": spec.task.model_copy(update={"proxy": 1.0}),
        "search": search,
        "final": spec.final.model_copy(update={"enabled": False}),
        "budget": None,
        "track": [],
    }
    return spec.model_copy(update=changes)


def _train(spec: Spec, folder: Path, parts: Sequence[Part], recipes: int, quiet: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    again = f"the same command goes on ({folder})"
    with held(folder, MARK), interruptible(folder, again), logged_apart(folder), told_in_one_line(folder, again):
        Progress(quiet=quiet).say("starting Ray")
        with connected():
            run = prepare(spec, folder, quiet, changing=True)
            try:
                _train_parts(run, parts, recipes)
            finally:
                stop_actors(run)


def _train_parts(run: Run, parts: Sequence[Part], recipes: int) -> None:
    assert run.space is not None
    count, known = len(run.data.train), read_record(run.folder)
    if known is not None and known.rows != count:
        raise UserError.at(
            "task.path",
            f"{count} train rows, where there were {known.rows} when {run.folder} began; put them back, or remove it",
            value=count,
            allowed=known.rows,
        )
    drawn = draw(run.space, recipes, run.spec.seed, () if known is None else known.recipes)
    if len(drawn) < recipes:
        run.progress.say(f"proxy: {len(drawn)} recipes, as the space has no more")
    if run.spec.train.samples is not None:
        run.progress.say(
            f"proxy: each fraction sees {run.spec.train.samples} samples, as train.samples says; with train.epochs "
            "instead, the smaller ones cost less"
        )
    chosen, sizes = _rows(run, parts), dict({} if known is None else known.sizes)
    for part in parts:
        rows = len(chosen[part])
        sizes[part.name] = {"rows": rows, "samples": train_settings(run.spec, rows).samples}
    write_record(run.folder, Record(run.task.metric, run.task.mode, count, len(run.space), drawn, sizes))
    for part in parts:
        if None in endings(run.folder, part, drawn[:recipes]):
            rows = len(chosen[part])
            run.progress.say(f"proxy: {part.select}, {100 * part.fraction:g} % of the rows ({rows:,} of {count:,})")
            _train_part(run, part, chosen[part], drawn[:recipes])


def draw(space: Space, count: int, seed: int, known: Sequence[Knobs] = ()) -> list[Knobs]:
    """At least `count` configurations of a space, as far as it has them, each once; the known ones come first."""
    rng, drawn = np.random.default_rng([seed, _STREAM]), [space.encode(recipe) for recipe in known]
    found: list[int] = []
    while len(found) < min(count, len(space)):
        found += space.sample(rng, 1, exclude=found)
    drawn += [index for index in found if index not in drawn]
    return [space.decode(index) for index in drawn[: max(count, len(known))]]


def _rows(run: Run, parts: Sequence[Part]) -> dict[Part, np.ndarray]:
    """Positions of each part's rows in train."""
    count, features = len(run.data.train), KeptFeatures(run)
    return {part: select(part.select, count, part.fraction, run.spec.seed, features) for part in parts}


def _train_part(run: Run, part: Part, positions: np.ndarray, recipes: Sequence[Knobs]) -> None:
    """Every recipe on these rows, by the search that a run has."""
    from raylora.run.search import search
    from trainables.host import change_setup

    folder = run.folder / part.name
    folder.mkdir(exist_ok=True)
    again = any(folder.iterdir())
    if again:
        archive_attempt(folder)
    rows = run.data.train.take(positions)
    setup = replace(run.setup, settings=train_settings(run.spec, len(rows)), train=rows, run_dir=str(folder))
    if run.hosts:
        assert run.latest is not None
        change_setup(run.hosts, run.latest, setup)
    search(replace(run, folder=folder, setup=setup, recipes=recipes), again)
    clear_workings(folder)
