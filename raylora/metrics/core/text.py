"""Text as people compare it."""

from __future__ import annotations

# What may stand around an answer without being part of it: quotes of several languages, stops, Markdown's emphasis.
_AROUND = " .,;:!\"'`*_\u201c\u201d\u201e\u2018\u2019\u201a«»\u2039\u203a"


def normalise(text: str) -> str:
    """Lower case, single spaces, without the quotes, stops and Markdown emphasis around it (unless it is all)."""
    spaced = " ".join(text.casefold().split())
    return spaced.strip(_AROUND) or spaced
