"""The candidates that a policy chooses among, as the options of the variant write them."""

from __future__ import annotations

from trainables.lelora.slices import POSITIONS


def parse_dimensions(value: object, rank: int) -> tuple[int, ...]:
    """Candidate dimensions, increasing.

    Args:
        value: `auto`: 0, the powers of two from 2, and r ({0, 2, 4, 8} for r = 8, as in the paper); `max`: r alone;
            or whole numbers separated by commas, the largest of which is r.

    Raises:
        ValueError: it is neither.
    """
    if value == "auto":
        return tuple(sorted({0, rank, *(2**i for i in range(1, rank.bit_length()) if 2**i < rank)}))
    if value == "max":
        return (rank,)
    try:
        found = sorted({int(part) for part in str(value).split(",")})
    except ValueError:
        found = []
    if isinstance(value, bool) or not found or found[0] < 0 or found[-1] != rank:
        raise ValueError(f"use auto, max, or whole numbers up to the rank, which is {rank}, separated by commas")
    return tuple(found)


def parse_positions(value: object) -> tuple[str, ...]:
    """Candidate positions: `all`, or some of `POSITIONS` separated by commas. Raises ValueError if it is neither."""
    found = list(POSITIONS) if value == "all" else [part.strip() for part in str(value).split(",")]
    if not set(found) <= set(POSITIONS):
        raise ValueError(f"use all, or some of {', '.join(POSITIONS)}, separated by commas")
    return tuple(position for position in POSITIONS if position in found)
