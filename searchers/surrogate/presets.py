"""A surrogate's settings from options: those under a name, and those given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import OptionError
from .learned import Learned
from .setup import Setup

# Settings under a name. `default` is what measurements support (docs/searchers.md); `paper` is Algorithm 1 with
# appendix B.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {"language": False},
    "paper": {
        "language": True,
        "knobs": False,
        "knowledge": False,
        "prompt_style": "paper",
        "token": True,
        "token_every": 5,
        "projection": 64,
        "acquisition": "ei",
        "warp": False,
        "priors": False,
        "smooth": False,
        "warm_start": True,
        "token_dtype": "float32",
    },
}


def chosen(options: Mapping[str, Any], switch: str) -> bool:
    """Whether a switch of `Setup` is on under these options and their preset."""
    preset = PRESETS.get(str(options.get("preset", "default")), {})
    return bool(options.get(switch, preset.get(switch, True)))


# Names of the settings.
OPTIONS = {one.name for one in fields(Setup)}


def make_setup(options: Mapping[str, Any]) -> Setup:
    """A surrogate's settings from options.

    Raises:
        ValueError: an unknown option, or a value outside its domain; the message names it.
    """
    from .acquisition import ACQUISITIONS
    from .reading.prompt import STYLES

    for name in options:
        if name not in OPTIONS:
            raise OptionError(
                name,
                f"the language searcher has no such option; use {', '.join(sorted(OPTIONS))}",
                value=options[name],
                allowed=sorted(OPTIONS),
            )
    read = {
        "projection": _width(options.get("projection", Setup.projection)),
        "learned": _prior(options.get("learned")),
    }
    setup = Setup(**{**options, **read})
    for name, least in (
        ("fit_steps", 1),
        ("token_every", 1),
        ("pool", 1),
        ("subset", 1),
        ("num_gpus", 0.0),
        ("kv_budget_gb", 0.0),
    ):
        value = getattr(setup, name)
        kind = int if isinstance(least, int) else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
            whole = "a whole number" if kind is int else "a number"
            raise OptionError(name, f"{value!r} is not {whole} of at least {least:g}", value=value)
    if setup.threads is not None and setup.threads < 1:
        raise OptionError("threads", f"{setup.threads!r} is too small; use at least 1", value=setup.threads)
    if not 0 <= setup.dropout < 1:
        raise OptionError("dropout", f"{setup.dropout!r} is outside [0, 1)", value=setup.dropout)
    if not setup.prior_shift > 0:
        raise OptionError("prior_shift", f"{setup.prior_shift!r} is not above 0", value=setup.prior_shift)
    types = (None, "bfloat16", "float16", "float32")
    for name, allowed in (
        ("acquisition", ACQUISITIONS),
        ("prompt_style", STYLES),
        ("dtype", types),
        ("token_dtype", types),
    ):
        if getattr(setup, name) not in allowed:
            value = getattr(setup, name)
            told = f"{value!r} is unknown; use {', '.join(map(str, allowed))}"
            raise OptionError(name, told, value=value, allowed=allowed)
    if not setup.language and not setup.knobs:
        raise OptionError(
            "language, knobs", "both are off; keep one of the two parts of the kernel", value=(False, False)
        )
    return setup


def _width(given: Any) -> int | None:
    """`[32]`, 32, or nothing."""
    value = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    if value is None or value is False:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(
            "projection", f"{given!r} is no width; use a whole number such as 32, or null for none", value=given
        )
    return value


def _prior(given: Any) -> Learned | None:
    """A learned prior, or the file of one."""
    if given is None or isinstance(given, Learned):
        return given
    try:
        return Learned.load(Path(given).expanduser())
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise OptionError(
            "learned",
            f"{given!r} is no file of a prior ({error}); `raylora bench fit-prior --to FILE` writes one",
            value=given,
        ) from None
