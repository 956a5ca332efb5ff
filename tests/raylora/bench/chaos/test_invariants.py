from __future__ import annotations

import json

import pytest

from raylora.bench.chaos.invariants import broken, checkpoints, differences, finished, not_gone_on_from, trained_again
from trainables.journal import Journal, trial_key

CONFIGS = [{"rank": 4}, {"rank": 8}]
FIRST, SECOND = map(trial_key, CONFIGS)


@pytest.fixture
def run(tmp_path):
    """A search of two trials that is over."""
    journal = Journal(tmp_path)
    for key, config in zip((FIRST, SECOND), CONFIGS, strict=True):
        journal.append("start", key, config=config)
        journal.finish(key, config, {"accuracy": 0.5, "step": 3})
        (tmp_path / f"trial_{key}").mkdir()
    (tmp_path / "summary.json").write_text(json.dumps({"trials": 2}))
    return tmp_path


def test_a_search_as_it_should_be_has_nothing_broken(run) -> None:
    assert broken(run, 2) == []
    assert finished(Journal(run).rows()) == {FIRST, SECOND} and not trained_again(Journal(run).rows())


def test_a_trial_that_goes_on_after_its_end_is_told(run) -> None:
    Journal(run).append("continue", FIRST, from_step=1)
    assert trained_again(Journal(run).rows()) == {FIRST}
    assert broken(run, 2) == [f"trial {FIRST} went on after it had finished"]


def test_a_trial_that_finished_twice_is_told(run) -> None:
    Journal(run).finish(SECOND, CONFIGS[1], {})
    assert f"2 `finish` lines of {SECOND}" in broken(run, 2)


def test_a_trial_that_is_missing_is_told(run) -> None:
    assert broken(run, 3) == [
        "2 trials finished of 3 asked for",
        "Tune's experiment has 2 trials of 3 asked for",
        "summary.json tells of 2 trials of 3 asked for",
    ]


def test_a_trial_that_failed_is_told(run) -> None:
    Journal(run).fail("other", {"rank": 16}, "no room")
    assert broken(run, 2) == ["trial other failed: no room"]


def test_a_trial_that_goes_on_from_an_earlier_step_than_before_is_told(run) -> None:
    for step in (5, 4):
        Journal(run).append("continue", "other", from_step=step)
    assert broken(run, 2) == ["other went on from step 4, after 5"]


def test_a_checkpoint_that_is_half_a_file_is_told(run, tmp_path) -> None:
    Journal(run).append("start", "other", config={"rank": 16})
    assert checkpoints(run) == ({"other": 0}, [])
    folder = tmp_path / "checkpoints" / "other"
    folder.mkdir(parents=True)
    (folder / "position.json").write_text('{"step": 3}')
    (folder / "adapter.safetensors").write_bytes(b"half")
    steps, (torn,) = checkpoints(run)
    assert not steps and torn.startswith("checkpoint of other: ")


def test_a_trial_that_does_not_go_on_from_its_checkpoint_is_told() -> None:
    rows = [{"event": "continue", "key": "a", "from_step": 3}, {"event": "continue", "key": "b", "from_step": 7}]
    assert not_gone_on_from(rows, {"a": 4, "b": 7, "c": 1}) == ["a went on from step 3, its checkpoint was of 4"]


@pytest.mark.parametrize(("promised", "told"), [("answer", 3), ("trials", 1), ("nothing", 0)])
def test_an_answer_is_held_against_what_is_promised_of_it(promised, told) -> None:
    uninterrupted = {"trials": {"a": {"loss": 1.0}}, "scores": {"best": 1}}
    found = {"trials": {"a": {"loss": 2.0}, "b": {"loss": 1.0}}, "scores": {"best": 2}}
    assert len(differences(found, uninterrupted, promised)) == told
    assert differences(uninterrupted, uninterrupted, promised) == []
