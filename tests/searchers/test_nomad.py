from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

import searchers.nomad
from searchers.nomad import NomadSearch
from searchers.space import Space
from searchers.testing import SearcherConformance, drive, small_space

LATTICE = Space.from_dict({"a": list(range(9)), "b": list(range(9)), "c": list(range(8))})


def bowl(config: dict[str, int]) -> float:
    return float((config["a"] - 3) ** 2 + (config["b"] - 5) ** 2 + (config["c"] - 1) ** 2)


class TestNomadSearch(SearcherConformance):
    searcher = NomadSearch


def test_it_descends_a_bowl() -> None:
    searcher = NomadSearch(space=LATTICE, metric="score", mode="min", seed=1)
    values = [bowl(config) for config in drive(searcher, [f"t{i}" for i in range(45)], bowl)]
    # 45 random points of the 648 would be above 2 with a probability of one half.
    assert min(values) == 0.0


def test_a_crash_of_nomad_ends_its_run_and_not_the_search() -> None:
    searcher = NomadSearch(space=LATTICE, metric="score", mode="min", seed=1)
    drive(searcher, list("abc"), bowl)
    assert searcher._process is not None
    os.kill(searcher._process.pid, signal.SIGKILL)
    later = drive(searcher, [f"t{i}" for i in range(5)], bowl)
    assert searcher._runs == 2 and all(isinstance(config, dict) for config in later)


def test_while_nomad_waits_other_slots_get_neighbours_of_the_best() -> None:
    searcher = NomadSearch(space=LATTICE, metric="score", mode="min", seed=1)
    searcher.record({"a": 3, "b": 5, "c": 1}, 0.0)
    searcher.suggest("nomad")
    near = {LATTICE.key(LATTICE.decode(i)) for i in LATTICE.neighbours(LATTICE.encode({"a": 3, "b": 5, "c": 1}))}
    others = [searcher.suggest(name) for name in "abc"]
    assert {LATTICE.key(config) for config in others} <= near  # type: ignore[arg-type]


def test_nomad_ends_with_its_searcher() -> None:
    searcher = NomadSearch(space=small_space(), metric="score", mode="max")
    searcher.suggest("a")
    process = searcher._process
    assert process is not None and process.poll() is None
    del searcher
    gc.collect()
    assert process.poll() is not None


def test_without_nomad_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("raise ImportError('no module PyNomad')")
    monkeypatch.setattr(searchers.nomad, "_WORKER", script)
    searcher = NomadSearch(space=small_space(), metric="score", mode="max")
    with pytest.raises(RuntimeError, match=r"no module PyNomad.*install PyNomadBBO"):
        searcher.suggest("a")
    assert searcher._process is None
