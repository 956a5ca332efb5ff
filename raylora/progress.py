"""What a person sees while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

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
        row: Mapping[str, Any],
        best: float | None,
        replayed: bool,
    ) -> None:
        """One line per trial that ended."""
        if row["event"] == "error":
            outcome = f"failed: {row.get('message')}"
        elif row.get("diverged"):
            outcome = "diverged"
        else:
            seconds = (row.get("train_s") or 0) + (row.get("eval_s") or 0) + (row.get("attach_s") or 0)
            loss = row.get("validation_loss")
            shown = f"{row[self.metric]:.4f}" if row.get(self.metric) is not None else "none"
            outcome = f"{self.metric} {shown}" + (f"  loss {loss:.3f}" if loss is not None else "")
            outcome += "  (stopped early)" if row.get("stopped") else ""
            outcome += "  (from the journal)" if replayed else f"  {seconds:.0f} s"
        line = f"[{count}/{total}] {describe(config)}  ->  {outcome}"
        self.say(line + (f"  best {best:.4f}" if best is not None else ""))
