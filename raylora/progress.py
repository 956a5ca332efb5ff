"""What a person sees while a run goes on: lines, and on a terminal a live view below them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live as LiveView
from rich.table import Table
from rich.text import Text

from raylora.spec.budget import duration
from trainables.live import Live, read_live

if TYPE_CHECKING:
    from trainables.journal import Ending

# Seconds between plain lines that say that work goes on.
HEARTBEAT_S = 60.0

ORDER = ("variant", "rank", "alpha", "alpha_ratio", "learning_rate", "batch_size", "dropout")
SHORT = {"learning_rate": "lr", "batch_size": "batch", "alpha_ratio": "alpha/r"}


def describe(config: Mapping[str, Any]) -> str:
    """A configuration in one short line, alpha spelled out."""
    parts: list[str] = []
    names = [name for name in ORDER if name in config] + [name for name in config if name not in ORDER]
    for name in names:
        value = config[name]
        if name == "variant":
            parts.append(str(value))
        elif name == "alpha_ratio" and "rank" in config:
            parts.append(f"alpha={value * config['rank']:g}")
        else:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(f"{SHORT.get(name, name)}={text}")
    return " ".join(parts)


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Args:
        stage: what is going on: `search`, `final stage`.
        done, total: trials that ended, of how many. best, default: values of the best trial and of the default recipe,
            as far as they are known. recipe: the best trial's configuration.
        left_s: seconds until the run should have ended; None without a budget.
        searcher: what it is doing.
    """

    stage: str
    done: int = 0
    total: int = 0
    best: float | None = None
    default: float | None = None
    recipe: Mapping[str, Any] | None = None
    left_s: float | None = None
    searcher: str = ""


class Progress:
    """Lines on standard error, and a live view while something is watched; silent when `quiet`.

    The view is for terminals. Where standard error is a file or a pipe, or `CI` is set, there are lines alone.
    """

    def __init__(self, metric: str = "", quiet: bool = False) -> None:
        self.metric, self.quiet = metric, quiet
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    @property
    def lively(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self.console.is_terminal and not self.quiet and not os.environ.get("CI")

    @contextlib.contextmanager
    def watching(self, folder: Path, standing: Callable[[], Standing]) -> Iterator[None]:
        """Show for the duration where the run in `folder` stands; `standing` is asked anew each time."""
        if self.quiet:
            yield
            return
        if self.lively:
            with LiveView(
                get_renderable=lambda: view(standing(), read_live(folder), self.metric),
                console=self.console,
                refresh_per_second=2,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            ):
                yield
            return
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(folder, standing, over), daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join(timeout=5)

    def _beat(self, folder: Path, standing: Callable[[], Standing], over: threading.Event) -> None:
        while not over.wait(HEARTBEAT_S):
            for line in beats(standing(), read_live(folder)):
                self.say(line)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def trial(
        self,
        count: int,
        total: int,
        config: Mapping[str, object],
        end: Ending,
        best: float | None,
        replayed: bool,
    ) -> None:
        """One line per trial that ended."""
        if end.failed:
            outcome = f"{end.kind}: {end.message}"
        elif end.diverged:
            outcome = "diverged"
        else:
            told = end.metrics
            seconds = sum(told.get(name) or 0 for name in ("train_s", "eval_s", "attach_s"))
            loss, value = told.get("validation_loss"), told.get(self.metric)
            shown = "none" if value is None else f"{value:.4f}"
            outcome = f"{self.metric} {shown}" + (f"  loss {loss:.3f}" if loss is not None else "")
            outcome += "  (stopped early)" if end.stopped else ""
            outcome += "  (from the journal)" if replayed else f"  {seconds:.0f} s"
        line = f"[{count}/{total}] {describe(config)}  ->  {outcome}"
        self.say(line + (f"  best {best:.4f}" if best is not None else ""))


def beats(standing: Standing, live: Mapping[str, Live]) -> list[str]:
    """Where a run stands as plain lines, one for each trial that runs."""
    told = [f"  ... {_who(one)}: {_where(one)}" for one in live.values()]
    if not told:
        told = [f"  ... {standing.searcher or standing.stage}"]
    if standing.left_s is not None:
        told[-1] += f"; {duration(max(0.0, standing.left_s))} of the budget left"
    return told


def view(standing: Standing, live: Mapping[str, Live], metric: str) -> RenderableType:
    """Where a run stands, to be drawn: the trials that run, the best so far, the time."""
    head = Text(standing.stage, style="bold")
    if standing.total:
        head.append(f"  {standing.done} of {standing.total} trials", style="not bold")
    if standing.left_s is not None:
        head.append(f"  {duration(max(0.0, standing.left_s))} of the budget left", style="not bold")
    parts: list[RenderableType] = [Text("-" * 60, style="dim"), head]
    if standing.best is not None and standing.recipe is not None:
        default = "not tried yet" if standing.default is None else f"{standing.default:.4f}"
        parts.append(
            Text(f"best {metric} {standing.best:.4f} (default recipe: {default}): {describe(standing.recipe)}")
        )
    if live:
        table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
        for name in ("host", "trial", "samples", "loss", "left"):
            table.add_column(name, no_wrap=name != "trial")
        for host, one in live.items():
            loss = "" if one["loss"] is None else f"{one['loss']:.3f}"
            table.add_row(host, _who(one), f"{one['samples']}/{one['of']}", loss, _left(one))
        parts.append(table)
    if standing.searcher:
        parts.append(Text(standing.searcher, style="dim"))
    return Group(*parts)


def _who(one: Live) -> str:
    return f"{one['name']} {describe(one['knobs'])}".strip()


def _where(one: Live) -> str:
    loss = "" if one["loss"] is None else f", loss {one['loss']:.3f}"
    return f"{one['samples']} of {one['of']} samples{loss}, {_left(one)}"


def _left(one: Live) -> str:
    """Time left of a trial's training; what was written is older than now."""
    if one["phase"] == "scoring":
        return f"scoring for {duration(max(0.0, time.time() - one['time']))}"
    if one["left_s"] is None:
        return "just begun"
    return f"about {duration(max(0.0, one['left_s'] - (time.time() - one['time'])))} left"
