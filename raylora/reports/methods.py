"""What makes two configurations one method: all of them but the learning rate, which each method has its best of.

Runs of one method at one rate differ in the seed alone, so their spread is the error of their mean. Runs at other
ranks, alphas, batch sizes or dropouts are other methods, as those of another variant are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raylora.run.trials import with_both_alphas

_KNOBS = ("rank", "alpha", "batch_size", "dropout")
_APART = {"variant", "learning_rate", "alpha_ratio", *_KNOBS}


@dataclass(frozen=True)
class Method:
    """A configuration without its learning rate.

    Attributes:
        options: what it has beside the knobs of every variant, as `name=value`, sorted.
        knobs: values of rank, alpha, batch size and dropout; None where the configuration does not say. One that gives
            alpha by its ratio to the rank is the same method as one that gives it itself.
    """

    variant: str
    options: tuple[str, ...]
    knobs: tuple[float | None, ...]

    @property
    def plain(self) -> Method:
        """LoRA with the same knobs."""
        return Method("lora", (), self.knobs)


def method_of(config: Mapping[str, Any]) -> Method:
    """The method of a configuration."""
    options = tuple(f"{name}={config[name]}" for name in sorted(set(config) - _APART))
    given = with_both_alphas(config)
    return Method(str(config["variant"]), options, tuple(_number(given.get(name)) for name in _KNOBS))


def _number(value: object) -> float | None:
    """Without the last digits, in which alpha and alpha_ratio times rank differ."""
    return float(f"{value:.9g}") if isinstance(value, int | float) else None


def method_names(configs: Iterable[Mapping[str, Any]]) -> dict[Method, str]:
    """A name for each method, in the order of first appearance: variant, options, and what not all of them share.

    Where alpha goes with the rank, it is not said beside it.
    """
    methods = list(dict.fromkeys(method_of(config) for config in configs))
    columns = dict(zip(_KNOBS, zip(*(method.knobs for method in methods), strict=True), strict=True)) if methods else {}
    shown = [name for name in _KNOBS if len(set(columns.get(name, ()))) > 1]
    if "alpha" in shown and len({_ratio(method) for method in methods}) == 1:
        shown.remove("alpha")
    names = {}
    for method in methods:
        values = dict(zip(_KNOBS, method.knobs, strict=True))
        parts = [*method.options, *(f"{name}={values[name]:g}" for name in shown if values[name] is not None)]
        names[method] = method.variant + (f" ({', '.join(parts)})" if parts else "")
    return names


def _ratio(method: Method) -> float | None:
    rank, alpha = method.knobs[:2]
    return _number(alpha / rank) if rank and alpha is not None else None
