"""Instruction following (IFEval)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from raylora.errors import UserError
from raylora.metrics.base import Estimate, Metric, MetricRow, Value, check_choice, check_lengths, mean_estimate
from raylora.metrics.core.instructions import CHECKS, follows, loose_versions
from raylora.metrics.core.missing import library
from raylora.metrics.core.references import metadata_of
from raylora.metrics.statistics import bootstrap_error

KINDS = ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")


class IfEval(Metric):
    """Share of verifiable instructions that completions follow (Zhou et al., 2023, arXiv:2311.07911).

    By prompt (all instructions of a row are followed) and by instruction (over all rows); strict, and loose: where the
    completion follows without its first or last line or its asterisks. All four come as parts. The error by instruction
    is bootstrapped over rows.

    A row's metadata holds `instruction_id_list` and `kwargs`, as in the published data: a list of mappings, or its JSON
    text; arguments that are null are not there.

    Args:
        count: the value: `prompt_strict`, `prompt_loose`, `instruction_strict` or `instruction_loose`.
    """

    name = "ifeval"
    summary = "share of verifiable instructions that are followed (IFEval): strict and loose, by prompt and instruction"

    def __init__(self, *, count: str = "prompt_strict") -> None:
        check_choice(self.name, "count", count, KINDS)
        library("langdetect", self.name)
        self.count = count

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        """Instructions of each row that are followed strictly and loosely, and how many there are, `(n, 3)`."""
        check_lengths(outputs, rows)
        return [_row(text, row) for text, row in zip(outputs, rows, strict=True)]

    def summarise(self, values: Sequence[Value]) -> Estimate:
        rows: list[Any] = sorted(tuple(value) for value in values if isinstance(value, Sequence))
        table = np.asarray(rows, dtype=float).reshape(-1, 3)
        parts: dict[str, Estimate] = {}
        for place, version in enumerate(("strict", "loose")):
            followed, there = table[:, place], table[:, 2]
            parts[f"prompt_{version}"] = mean_estimate((followed == there).astype(float).tolist())
            pairs = np.stack([followed, there], axis=1)
            value = _share(pairs) if len(pairs) else math.nan
            parts[f"instruction_{version}"] = Estimate(value, bootstrap_error(pairs, _share))
        return Estimate(parts[self.count].value, parts[self.count].error, {kind: parts[kind] for kind in KINDS})


def _share(pairs: np.ndarray) -> float:
    followed, there = pairs.sum(axis=0)
    return float(followed / there)


def _row(text: str, row: MetricRow) -> tuple[float | str, ...]:
    instructions = _instructions(row)
    versions = loose_versions(text)
    strict = sum(_follows(kind, text, arguments) for kind, arguments in instructions)
    loose = sum(any(_follows(kind, one, arguments) for one in versions) for kind, arguments in instructions)
    return (float(strict), float(loose), float(len(instructions)))


def _follows(kind: str, text: str, arguments: Mapping[str, object]) -> bool:
    try:
        return follows(kind, text, arguments)
    except (TypeError, AttributeError, ValueError, re.error) as error:
        raise UserError.at(
            "metadata.kwargs", f"{arguments!r} do not fit {kind}: give those of the published data", value=arguments
        ) from error


def _instructions(row: MetricRow) -> list[tuple[str, dict[str, object]]]:
    metadata = metadata_of(row)
    kinds, arguments = metadata.get("instruction_id_list"), metadata.get("kwargs")
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    if not isinstance(kinds, list) or not isinstance(arguments, list) or not kinds or len(kinds) != len(arguments):
        raise UserError.at(
            "task.metrics",
            "ifeval needs instruction_id_list and kwargs, of the same length, in the metadata of each row",
        )
    for kind in kinds:
        if kind not in CHECKS:
            raise UserError.at(
                "metadata.instruction_id_list",
                f"unknown {kind!r}; known: {', '.join(CHECKS)}",
                value=kind,
                allowed=list(CHECKS),
            )
    if not all(isinstance(given, Mapping | None) for given in arguments):
        raise UserError.at("metadata.kwargs", "not all of them are mappings; give those of the published data")
    return [
        (kind, {name: value for name, value in (given or {}).items() if value is not None})
        for kind, given in zip(kinds, arguments, strict=True)
    ]
