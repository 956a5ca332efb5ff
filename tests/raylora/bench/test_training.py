"""Searchers on real training: what is recorded, what is not trained twice, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raylora.bench.searchers import parse_searchers
from raylora.bench.training import bench_training, read_search
from raylora.errors import UserError
from raylora.spec import load


def test_a_search_is_told_of_validation_alone_and_goes_on_where_it_was(
    write_spec: Any, tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load(write_spec(train={"samples": 8}))
    kept: dict[str, Any] = {"searchers": parse_searchers("random"), "seeds": 1, "quiet": True}
    (file,) = bench_training({"sums": spec}, tmp_path / "runs", trials=1, **kept)
    first = read_search(file)["trials"][0]
    assert first["samples"] == 8 and {"validation", "test"} <= set(first)
    assert first["validation"] != first["test"] and "eval_s" not in first["test"]
    assert bench_training({"sums": spec}, tmp_path / "runs", trials=2, **kept) == [file]
    both = read_search(file)["trials"]
    assert both[0] == first and both[1]["config"] != first["config"]

    def refuse(*_: Any) -> None:
        raise AssertionError("a trial that is there was trained again")

    # Another searcher with the same seed that proposes the same: nothing is trained.
    monkeypatch.setattr("raylora.bench.training._Task._train", refuse)
    other = file.with_name(file.name.replace("random", "tpe"))
    monkeypatch.setattr("raylora.run.searcher.build_searcher", lambda *_, **__: _Replay([t["config"] for t in both]))
    (again,) = bench_training(
        {"sums": spec}, tmp_path / "runs", trials=2, **kept | {"searchers": parse_searchers("tpe")}
    )
    assert again == other and [t["config"] for t in read_search(other)["trials"]] == [t["config"] for t in both]
    monkeypatch.setattr("raylora.run.searcher.build_searcher", lambda *_, **__: _Replay([both[1]["config"]] * 3))
    with pytest.raises(UserError, match="another trial 1 than random proposes today; remove it"):
        bench_training({"sums": spec}, tmp_path / "runs", trials=3, **kept)
    changed = load(write_spec(train={"samples": 12}))
    with pytest.raises(UserError, match=r"has train = .*; name another folder"):
        bench_training({"sums": changed}, tmp_path / "runs", trials=2, **kept)


class _Replay:
    """A searcher that proposes what it was given."""

    def __init__(self, configs: list[dict[str, Any]]) -> None:
        self.configs = configs

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return self.configs[int(trial_id[1:])]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        assert "test" not in result and result["samples"] > 0


def test_a_file_that_is_no_search_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match=r"x.json: no search of `raylora bench training`; remove it"):
        read_search(tmp_path / "x.json")
