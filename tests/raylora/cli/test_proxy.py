"""A whole measurement on the tiny model, as people ask for it."""

from __future__ import annotations

import pytest

from raylora.run.proxy import measure
from raylora.run.proxy.measure import measure_proxies
from raylora.spec import load
from trainables.journal import Journal

SMALL = {"task__metrics": ["loss"], "space__variant": "lora", "space__batch_size": 8}


@pytest.mark.real
def test_the_command_trains_the_same_recipes_on_each_part_and_answers_again_from_files(
    write_spec, ray_local, table, answer, monkeypatch, tmp_path
) -> None:
    command = ["proxy", write_spec(**SMALL), "--fractions", "0.2,1", "--recipes", "3", "--select", "tsds", "--quiet"]
    shown = table(*command)
    assert "20 % (8)" in shown and "100 % (40)" in shown and "tsds" in shown
    (folder,) = (tmp_path / "runs").glob("proxy-run-*")
    started = [set(Journal(folder / name).started()) for name in ("tsds-0.2", "random-1")]
    assert started[0] == started[1] and len(started[0]) == 3
    samples = [next(iter(Journal(folder / name).concluded().values())).metrics for name in ("tsds-0.2", "random-1")]
    assert [metrics["samples"] for metrics in samples] == [8, 40]
    assert (folder / "proxy.svg").stat().st_size and not (folder / "random-1" / "checkpoints").exists()

    def refuse(*_: object) -> None:
        raise AssertionError("what is there was trained again")

    monkeypatch.setattr(measure, "_train", refuse)
    found = answer(*command)
    assert found["proxies"][0]["recipes"] == 3 and found["reference"]["rows"] == 40
    assert {len(one["scores"]) for one in found["recipes"]} == {2}
    with pytest.raises(AssertionError, match="trained again"):
        measure_proxies(load(write_spec(**SMALL)), [0.2, 1], 4, ["tsds"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fractions", "0.1,some"], "--fractions: 0.1,some; allowed: numbers separated by commas"),
        (["--recipes", "2"], "--recipes: 2; allowed: at least 3"),
        (["--select", "tsd"], "--select: 'tsd': no such selector; did you mean 'tsds'?"),
    ],
)
def test_mistakes_are_one_line_before_training(write_spec, mistake, arguments, told) -> None:
    assert mistake("proxy", write_spec(), *arguments).startswith(told)
