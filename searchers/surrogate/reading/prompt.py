"""The text that a configuration becomes: knowledge first, values last.

The order is what makes the embedding cheap: everything up to the values is the same for every configuration, so a
causal language model reads it once, and of the values what begins alike once as well (see `embed.py`). The last line is
therefore the one of least consequence, and short. The published templates (table A10 of the paper on language-aided
Bayesian optimisation) are the other two styles: `paper` is A10b, which explains the knobs and then states their values,
and `plain` is A10a, the values alone. Names and order of the values are the paper's; what is said of each knob is the
same in other words, and a knob that the paper does not have is named and explained as in the default style.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import OptionError
from ...space import Knob, Space
from ..facts import VARIANTS

INTRODUCTION = "Hyperparameters for fine-tuning a language model with low-rank adapters, and how they act together.\n"

KNOWLEDGE: dict[str, str] = {
    "variant": "variant: how the adapter is built.",
    "rank": (
        "rank: capacity of the adapter. Small ranks underfit hard tasks; large ranks cost memory, overfit small data "
        "and need a lower learning rate."
    ),
    "alpha": (
        "alpha: the update is multiplied by alpha / rank, much like a learning rate of its own. One or two times the "
        "rank is common; many times the rank needs a small learning rate."
    ),
    "batch_size": (
        "batch size: larger batches average the noise away, take fewer steps over the same data and want a larger "
        "learning rate; small batches want a smaller one."
    ),
    "learning_rate": (
        "learning rate: the most important choice. Too low barely moves, too high diverges, sooner when alpha / rank "
        "is large. 1e-4 to 5e-4 is usual for adapters."
    ),
    "dropout": (
        "dropout: share of adapter inputs dropped in training. Helps large ranks and small data; useless when training "
        "is short."
    ),
    "weight_decay": "weight decay: pulls the adapter towards zero; a mild guard against overfitting.",
    "placement": "placement: which weight matrices get an adapter; more matrices mean more capacity.",
    "epochs": "epochs: passes over the data; longer training wants a smaller learning rate.",
}

_ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
# What the paper's own template says of each knob.
PAPER_KNOWLEDGE: dict[str, str] = {
    "rank": (
        "Rank (r): the dimension of the low-rank update, so the capacity of the adapter. A larger r expresses more, "
        "takes more memory and compute, and overfits more easily: regularise more then, or lower the learning rate."
    ),
    "alpha": (
        f"Scaling factor ({_ALPHA}): scales the LoRA update, whose effective size is {_ALPHA} / r; {_ALPHA} near r "
        "keeps its strength the same. A larger alpha adapts more strongly, but training can become unstable where the "
        "learning rate is high."
    ),
    "dropout": (
        "Dropout: how likely the adapter's path is dropped in training, to regularise it. More of it holds overfitting "
        "down, above all with a large r or little data, and often lets alpha or the learning rate be slightly larger "
        "before training becomes unstable."
    ),
    "batch_size": (
        "Batch size: samples per step of the optimizer. Larger batches have smoother gradients and mostly allow a "
        "learning rate larger in proportion (the linear scaling rule), for more memory. Small ones may need gradients "
        "to be accumulated, or a lower learning rate."
    ),
    "learning_rate": (
        "Learning rate: size of the steps of the adapter's parameters. Too high it can diverge, above all with a large "
        "alpha / r; too low it converges slowly. Choose it together with the batch size, and think of a schedule such "
        "as the cosine to weigh speed against stability."
    ),
}
# How its templates name them.
PAPER_TITLES = {
    "rank": "rank(r)",
    "alpha": f"Scaling factor({_ALPHA})",
    "dropout": "Dropout Rate",
    "batch_size": "Batch Size",
    "learning_rate": "Learning Rate",
}

# Before the values, so that nothing stands between them and the token.
QUESTION = "How good will the fine-tuned model be with these values?\n"

# Small language models read "low" far better than "2e-5": the level of a value among those searched is spelled out.
LEVELS = ("very low", "low", "medium", "high", "very high")
LEVELLED = ("rank", "alpha", "alpha_ratio", "batch_size", "learning_rate")

# Order of the value lines: what matters most first; others keep the space's order between.
FIRST, LAST = ("variant", "learning_rate", "batch_size", "rank", "alpha_ratio", "alpha"), ("weight_decay", "dropout")
PAPER_ORDER = ("variant", "rank", "alpha", "alpha_ratio", "dropout", "batch_size", "learning_rate")
STYLES = ("default", "paper", "plain")

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def format_value(value: object) -> str:
    """A value as people write it: `8`, `0.05`, `2e-4`, `lora`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if value != 0 and abs(value) < 0.01:
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.12g}"


class Prompt:
    """Template of a space: `prefix` is constant, `values(config)` is what differs.

    Args:
        space: its searched knobs are described and listed; fixed knobs are stated once, in the prefix.
        template: text to use instead of the built-in one. `{name}` stands for the value of a knob and `{alpha}` for
            rank times `alpha_ratio`; the values part begins with the first line that holds such a placeholder. Without
            placeholders the text replaces the knowledge only.
        style: `default`; `paper`: table A10b, the published order and names, alpha itself, no levels; `plain`: table
            A10a, the same in one line and without any explanation.

    Raises:
        ValueError: a placeholder that is no knob, a searched knob that the template never shows, an unknown style.
    """

    def __init__(self, space: Space, template: str | None = None, style: str = "default") -> None:
        if style not in STYLES:
            raise ValueError(f"prompt style: {style!r} is unknown; use {', '.join(STYLES)}")
        self._searched = [k.name for k in space.knobs if len(k) > 1]
        self._fixed = {k.name: k.values[0] for k in space.knobs if len(k) == 1 and not k.when}
        self._space, self._style = space, style
        self._lines: str | None = None
        self._order = _ordered(space, style)
        if template is None:
            self.prefix = self._begin()
        elif _PLACEHOLDER.search(template) is None:
            self.prefix = template.rstrip("\n") + "\n"
        else:
            self.prefix, self._lines = self._split(template)
            return
        if self._fixed:
            stated = ", ".join(f"{_title(n)} {format_value(v)}" for n, v in self._fixed.items())
            self.prefix += f"Fixed: {stated}.\n"
        self.prefix += QUESTION if style == "default" else ""
        # Something has to be the same for all.
        self.prefix = self.prefix or "\n"

    @classmethod
    def from_file(cls, space: Space, path: str | Path, style: str = "default") -> Prompt:
        """A prompt whose template is the text of a UTF-8 file; ValueError when it cannot be read."""
        try:
            return cls(space, Path(path).read_text(encoding="utf-8"), style)
        except OSError as error:
            raise OptionError(
                "prompt", f"cannot read {str(path)!r} ({error.strerror}); give a text file", value=str(path)
            ) from error

    def values(self, config: Mapping[str, object]) -> str:
        """The part of the prompt that differs between configurations; knobs that do not apply are left out."""
        if self._lines is not None:
            known = {n: format_value(config[n]) if n in config else "none" for n in self._space.names}
            shown = known | {"alpha": format_value(_alpha(config))}
            return _PLACEHOLDER.sub(lambda match: shown[match[1]], self._lines)
        lines = []
        for knob in self._order:
            if knob.name not in config:
                continue
            if len(knob) == 1 and not knob.when:
                # Alpha moves with the rank even where its ratio is fixed.
                if knob.name == "alpha_ratio" and "rank" in self._searched:
                    lines.append(self._stated(self._named("alpha"), format_value(_alpha(config))))
                continue
            lines.append(self._line(knob, config))
        return (", " if self._style == "plain" else "\n").join(lines)

    def _line(self, knob: Knob, config: Mapping[str, object]) -> str:
        title, value = self._named(knob.name), format_value(config[knob.name])
        if self._style != "default":
            if knob.name == "alpha_ratio":
                title, value = self._named("alpha"), format_value(_alpha(config))
            return self._stated(title, value)
        if knob.name == "alpha_ratio":
            title = "alpha / rank"
        level = _level(knob, config[knob.name]) if knob.name in LEVELLED else None
        return self._stated(title, f"{level} ({value})" if level else value)

    def _named(self, name: str) -> str:
        return _title(name) if self._style == "default" else PAPER_TITLES.get(name, _title(name))

    def _stated(self, title: str, value: str) -> str:
        if self._style == "plain":
            return f"{title}={value}"
        return f"* {title}: {value}" if self._style == "paper" else f"{title}: {value}"

    def text(self, config: Mapping[str, object]) -> str:
        """The whole prompt."""
        return self.prefix + self.values(config)

    def _begin(self) -> str:
        """What stands before everything else."""
        if self._style == "plain":
            return ""
        if self._style == "paper":
            names = [knob.name for knob in self._order]
            return "".join(f"* {text}\n" for text in self._knowledge(names, {**KNOWLEDGE, **PAPER_KNOWLEDGE}))
        return INTRODUCTION + "".join(f"- {text}\n" for text in self._knowledge(self._space.names, KNOWLEDGE))

    def _knowledge(self, names: Iterable[str], all_known: Mapping[str, str]) -> list[str]:
        texts = []
        for name in names:
            known = all_known.get("alpha" if name == "alpha_ratio" else name)
            text = known or f"{_title(name)}: a further setting of this training run, to be judged by its results."
            if name == "variant":
                values = self._space.knobs[self._space.names.index(name)].values
                told = [f"{v} {VARIANTS[v].claim}" for v in values if v in VARIANTS]
                text += "".join(f" {one}." for one in told)
            texts.append(text)
        return texts

    def _split(self, template: str) -> tuple[str, str]:
        used = set(_PLACEHOLDER.findall(template))
        allowed = set(self._space.names) | ({"alpha"} if "alpha_ratio" in self._space.names else set())
        for name in sorted(used - allowed):
            raise OptionError(
                "prompt",
                f"{{{name}}} is no knob; use {', '.join(sorted(allowed))}",
                value=template,
                allowed=sorted(allowed),
            )
        # Alpha stands for its ratio only beside the rank.
        told = used | ({"alpha_ratio"} if "alpha" in used and ("rank" in used or "rank" in self._fixed) else set())
        for name in self._searched:
            if name not in told:
                raise OptionError(
                    "prompt", f"knob {name} is searched but {{{name}}} is not in the template; add it", value=template
                )
        lines = template.splitlines(keepends=True)
        first = next(i for i, line in enumerate(lines) if _PLACEHOLDER.search(line))
        return "".join(lines[:first]) or "\n", "".join(lines[first:])


def _title(name: str) -> str:
    return name.replace("_", " ")


def _alpha(config: Mapping[str, Any]) -> float:
    if "alpha_ratio" not in config:
        return config.get("alpha", 0.0)
    return config["alpha_ratio"] * config.get("rank", 1)


def _level(knob: Knob, value: object) -> str | None:
    """Where a value stands among the searched ones, None for categorical knobs."""
    if knob.kind == "categorical" or len(knob) == 1:
        return None
    share = knob.position(value) / (len(knob) - 1)
    return LEVELS[round(share * (len(LEVELS) - 1))]


def _ordered(space: Space, style: str) -> list[Knob]:
    """The knobs in the order of their lines."""
    names = [k.name for k in space.knobs]
    if style == "default":
        rest = [n for n in names if n not in FIRST and n not in LAST]
        order = [*FIRST, *rest, *LAST]
    else:
        order = [*PAPER_ORDER, *(n for n in names if n not in PAPER_ORDER)]
    return [space.knobs[names.index(n)] for n in order if n in names]
