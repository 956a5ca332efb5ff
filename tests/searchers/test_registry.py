from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_the_same_file_as_that_of_trainables() -> None:
    # The two packages may not import each other, and a third one for a single file would be one more to install. Its
    # behaviour is tested in tests/trainables/test_registry.py.
    assert (ROOT / "searchers/registry.py").read_bytes() == (ROOT / "trainables/registry.py").read_bytes()
