"""The table of what was done to searches and what came of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypedDict, cast

from raylora.bench.chaos.harms import KINDS
from raylora.bench.records import markdown as table_of


class Kill(TypedDict):
    """What was done to a search, and what came of it.

    `finished`: trials that had, before; `lost` and `repeated`: of those, by the search's end. `resumed`: times that
    `raylora resume` was called. `seconds`: until the journal's next line, from the kill, or from the end of the
    trouble. `broken`: what did not hold, in words; that of the search as a whole stands with each of its kills.
    """

    kind: str
    scene: str
    search: int
    at: str
    finished: int
    lost: int
    repeated: int
    resumed: int
    seconds: float
    told: list[str]
    broken: list[str]


def read_records(file: Path) -> list[Kill]:
    """What was recorded so far; half a line at the end is passed over."""
    found = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        with contextlib.suppress(ValueError):
            found.append(cast(Kill, json.loads(line)))
    return found


def table(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """See `monkey.bench_chaos`."""
    kinds = {}
    for kind in KINDS:
        of_kind = [record for record in records if record["kind"] == kind]
        if of_kind:
            seconds = [record["seconds"] for record in of_kind]
            kinds[kind] = {
                "kills": len(of_kind),
                "lost": sum(record["lost"] for record in of_kind),
                "repeated": sum(record["repeated"] for record in of_kind),
                "resumed": sum(record["resumed"] for record in of_kind),
                "median_s": median(seconds),
                "longest_s": max(seconds),
            }
    return {
        "kills": len(records),
        "searches": len({record["search"] for record in records}),
        "lost": sum(record["lost"] for record in records),
        "repeated": sum(record["repeated"] for record in records),
        "broken": sorted({line for record in records for line in record["broken"]}),
        "kinds": kinds,
    }


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The table's rows: kind, kills, lost, repeated, seconds to go on, with a last one over all."""
    found = [
        [
            kind, KINDS[kind], str(one["kills"]), str(one["lost"]), str(one["repeated"]), str(one["resumed"]),
            f"{one['median_s']:.1f} ({one['longest_s']:.1f})",
        ]
        for kind, one in figures["kinds"].items()
    ]  # fmt: skip
    resumed = sum(one["resumed"] for one in figures["kinds"].values())
    total = [str(figures["kills"]), str(figures["lost"]), str(figures["repeated"]), str(resumed)]
    return [*found, ["all", f"{figures['searches']} searches", *total, ""]]


COLUMNS = ["kind", "what", "kills", "lost", "repeated", "resumed", "seconds to go on: median (longest)"]


def markdown(figures: Mapping[str, Any]) -> str:
    """The table for documentation."""
    return table_of([COLUMNS, *rows(figures)])
