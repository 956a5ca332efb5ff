"""What a person sees while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from trainables.journal import Ending

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


class Progress:
    """Lines on standard error; silent when `quiet`."""

    def __init__(self, metric: str = "", quiet: bool = False) -> None:
        self.metric = metric
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def trial(
        self,
        count: int,
        total: int,
        config: Mapping[str, Any],
        end: Ending,
        best: float | None,
        replayed: bool,
    ) -> None:
        """One line per trial that ended."""
        if end.failed:
            outcome = f"failed: {end.message}"
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
