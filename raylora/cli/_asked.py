"""A spec as a command is asked for it: from YAML, from flags, or from both; every flag has its field in the spec."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.cli._output import listed
from raylora.errors import UserError

if TYPE_CHECKING:
    from raylora.spec import Spec

# Flag -> field, the flag's placeholder, and what it says.
FLAGS: dict[str, tuple[str, str, str]] = {
    "model": ("model", "NAME", "base model: alias, folder or hub id"),
    "data": ("task.path", "PATH", "rows: file, glob, folder, URL or hub id"),
    "task": ("task.name", "NAME", "default: instruct, rows of your own"),
    "budget": ("budget", "TIME", "to wait for everything, such as 20m, 6h, 100gpuh"),
    "variants": ("space.variant", "A,B,..", "LoRA variants to search"),
    "trials": ("search.trials", "N", "configurations to train"),
    "searcher": ("search.searcher", "NAME", "`raylora searchers` lists them"),
    "hosts": ("resources.hosts", "N", "trials at a time; or auto, as the cluster has room"),
    "seed": ("seed", "N", "of everything that is drawn"),
    "name": ("name", "NAME", "of the run's folder"),
    "to": ("storage_path", "FOLDER", "above the run's folder (default: runs)"),
}


def number_or_auto(text: str) -> int | str:
    """`auto`, or a number, as argparse is to read it."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: auto, or a whole number") from None


_KINDS: dict[str, Callable[[str], object]] = {"trials": int, "hosts": number_or_auto, "seed": int}


def add_asked(parser: argparse.ArgumentParser, *without: str) -> None:
    """A spec, dotted overrides, and the flags that do without either."""
    parser.add_argument("spec", nargs="?", metavar="SPEC.yaml", help="or --model with --data")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="changes to the spec")
    for flag, (field, placeholder, what) in FLAGS.items():
        if flag not in without:
            kind = _KINDS.get(flag, str)
            parser.add_argument(f"--{flag}", type=kind, metavar=placeholder, help=f"{what} ({field})")


def spec_and_changes(options: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The spec's file, if any, and the changes to it."""
    file, changes = options.spec, list(options.overrides)
    # Without a spec, the first change stands in its place.
    if file is not None and "=" in file and not Path(file).exists():
        return None, [file, *changes]
    return file, changes


def asked_spec(options: argparse.Namespace) -> Spec:
    """The spec that is asked for; flags win over the file, overrides over both.

    Raises:
        UserError: neither a file nor a model with data, or a mistake in what is given.
    """
    from raylora.spec import from_dict
    from raylora.spec.text import apply_overrides, put, read_yaml

    file, overrides = spec_and_changes(options)
    given = {flag: value for flag in FLAGS if (value := getattr(options, flag, None)) is not None}
    if file is None and "model" not in given:
        raise UserError.at("SPEC.yaml", "missing; give one, or --model with --data (`raylora init` writes a spec)")
    data: dict[str, Any] = {"task": {}} if file is None else read_yaml(Path(file))
    if file is None:
        data = put(data, machine_defaults() if "hosts" not in given else {})
    fields = {FLAGS[flag][0]: listed(value) if flag == "variants" else value for flag, value in given.items()}
    search = data.get("search")
    before = search.get("searcher") if isinstance(search, dict) else None
    if "searcher" in given and before != given["searcher"]:
        fields["search.options"] = {}
    return from_dict(apply_overrides(put(data, fields), overrides))


def process_began() -> float:
    """When this process was started, on the monotonic clock: who waits for a command waits for its imports too."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Field 22 of proc(5)'s stat, counted from behind the name, in clock ticks since boot.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.monotonic() - max(0.0, age)
    return time.monotonic()


def machine_defaults() -> dict[str, object]:
    """Fields for this machine where no spec says them: a host for each GPU."""
    from raylora.run.plan.machine import gpu_names

    gpus = len(gpu_names())
    return {"resources.hosts": gpus, "resources.gpus_per_host": 1.0} if gpus else {}
