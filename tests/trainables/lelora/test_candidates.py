"""Candidates as options write them."""

from __future__ import annotations

from trainables.lelora.candidates import parse_dimensions, parse_positions
from trainables.lelora.slices import POSITIONS


def test_candidate_sets_are_those_of_the_paper_or_as_written() -> None:
    assert parse_dimensions("auto", 8) == (0, 2, 4, 8)
    assert parse_dimensions("auto", 32) == (0, 2, 4, 8, 16, 32)
    assert parse_dimensions("auto", 1) == (0, 1)
    assert parse_dimensions("auto", 6) == (0, 2, 4, 6)
    assert parse_dimensions("max", 32) == (32,)
    assert parse_dimensions("0, 3,5", 5) == (0, 3, 5)
    assert parse_dimensions(5, 5) == (5,)
    assert parse_positions("all") == POSITIONS
    assert parse_positions("minor,primary") == ("primary", "minor")
