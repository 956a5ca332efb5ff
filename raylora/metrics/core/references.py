"""Texts that a completion is compared with."""

from __future__ import annotations

import json

from raylora.errors import UserError
from raylora.metrics.base import MetricRow


def metadata_of(row: MetricRow) -> dict[str, object]:
    """A row's `metadata`, read; empty where it is no JSON object."""
    found = row.get("metadata")
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = None
    return found if isinstance(found, dict) else {}


def references_of(row: MetricRow) -> list[str]:
    """The texts under `references` in a row's metadata, else its answer, at least one."""
    listed = metadata_of(row).get("references")
    if listed is None:
        return [str(row["answer"])]
    if not isinstance(listed, list) or not listed or not all(isinstance(text, str) for text in listed):
        raise UserError.at(
            "metadata.references", f"{listed!r} is not allowed; give a list of texts, at least one", value=listed
        )
    return listed
