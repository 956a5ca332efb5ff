from __future__ import annotations

import json

import pytest

from raylora.errors import UserError
from raylora.run import requests
from raylora.run.requests import (
    Request,
    add_trial,
    answers,
    book,
    change_trials,
    clone_trial,
    end_search,
    stop_trial,
    waiting,
)
from trainables.journal import Journal


@pytest.fixture
def interrupted(old_run):
    """A run with two trials that ended and a third that did not."""
    return old_run("interrupted")


def test_a_request_waits_for_the_run_to_go_on(interrupted) -> None:
    answer = stop_trial(interrupted, 3)
    assert answer["state"] == "waiting" and f"raylora resume {interrupted}" in answer["told"]
    (request,) = waiting(interrupted)
    assert (request.id, request.what) == (answer["request"], "stop")
    assert request.key == list(Journal(interrupted).started())[2]


def test_requests_are_answered_once_and_in_the_order_of_asking(interrupted) -> None:
    add_trial(interrupted, {"rank": 16})
    clone_trial(interrupted, 1, {"rank": 16})
    first, second = waiting(interrupted)
    left = (interrupted / "requests" / f"{first.id}.json").read_bytes()
    book(interrupted, first, taken=True, told="tried next")
    assert waiting(interrupted) == [second]
    # As if the process had died before the file was gone.
    (interrupted / "requests" / f"{first.id}.json").write_bytes(left)
    assert waiting(interrupted) == [second]
    assert answers(interrupted)[first.id]["state"] == "taken"
    assert [what for what, _, _ in requests.taken(interrupted)] == ["add"]


def test_a_file_that_is_no_request_is_passed_over(interrupted) -> None:
    (interrupted / "requests").mkdir()
    (interrupted / "requests" / "1.json").write_text('{"what": "st')
    (interrupted / "requests" / "2.json").write_text('{"when": "now"}')
    assert waiting(interrupted) == []


def test_an_added_configuration_is_the_default_recipe_with_changes(interrupted) -> None:
    add_trial(interrupted, {"learning_rate": 3e-3, "alpha": 24, "rank": 12})
    (request,) = waiting(interrupted)
    told = {"variant": "lora", "rank": 12, "alpha_ratio": 2.0, "batch_size": 4, "learning_rate": 3e-3, "dropout": 0.0}
    assert request.config == told


def test_a_cloned_configuration_keeps_its_ratio_of_alpha_to_rank(interrupted) -> None:
    before = Journal(interrupted).started()
    clone_trial(interrupted, next(iter(before))[:6], {"rank": 8})
    (request,) = waiting(interrupted)
    assert dict(request.config) == {**next(iter(before.values())).config, "rank": 8}


def test_options_go_with_the_variant_that_reads_them(interrupted) -> None:
    add_trial(interrupted, {"variant": "pissa", "niter": 8})
    assert waiting(interrupted)[0].config["niter"] == 8
    with pytest.raises(UserError, match=r"niter: no such knob of lora; allowed: variant, rank"):
        add_trial(interrupted, {"niter": 8})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": 0}, "rank = 0: allowed: at least 1"),
        ({"variant": "lroa"}, "did you mean 'lora'"),
        ({"rnak": 4}, "rnak: no such knob of lora; did you mean 'rank'"),
        ({"alpha_ratio": "much"}, "alpha_ratio = 'much': allowed: a number"),
        ({"alpha": 8, "alpha_ratio": 1}, "both are given"),
    ],
)
def test_a_knob_or_value_that_there_is_not_is_one_line(interrupted, changes, told) -> None:
    with pytest.raises(UserError, match=told) as caught:
        add_trial(interrupted, changes)
    assert "default_recipe" not in str(caught.value) and "\n" not in str(caught.value)
    assert waiting(interrupted) == []


def test_what_was_tried_and_what_is_over_is_refused(interrupted) -> None:
    with pytest.raises(UserError, match=r"trial 1 of .* has this configuration"):
        clone_trial(interrupted, 1, {"dropout": 0.0})
    with pytest.raises(UserError, match=r"trial 1 of .* is over"):
        stop_trial(interrupted, 1)
    for trial in (4, "0", "ffff", "lora"):
        with pytest.raises(UserError, match="no such trial"):
            stop_trial(interrupted, trial)
    with pytest.raises(UserError, match=r"search.trials = 7: the space has only 6"):
        change_trials(interrupted, 7)


def test_a_finished_run_says_how_it_gets_more_trials(old_run) -> None:
    run = old_run("finished")
    for ask in (end_search, lambda run: add_trial(run, {"rank": 4})):
        with pytest.raises(UserError, match=r"is finished; for more trials raise search\.trials"):
            ask(run)


def test_a_request_is_whole_or_not_there(interrupted, monkeypatch) -> None:
    def die(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(requests.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        end_search(interrupted)
    assert waiting(interrupted) == []
    assert json.loads(next((interrupted / "requests").glob(".*.fresh")).read_text())["what"] == "end"


def test_requests_made_at_once_have_ids_of_their_own() -> None:
    assert len({Request("end").id for _ in range(100)}) == 100
