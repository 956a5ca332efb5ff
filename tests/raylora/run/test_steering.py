from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from raylora.progress import Progress
from raylora.run import experiment
from raylora.run.folder import read_run
from raylora.run.journaled import JournaledSearcher
from raylora.run.requests import add_trial, answers, book, change_trials, end_search, stop_trial, waiting
from raylora.run.state import run_status
from raylora.run.steering import Steering
from raylora.run.trials import trial_table
from raylora.spec import load
from searchers import make_searcher
from trainables.journal import Journal, trial_key
from trainables.stops import asked_to_stop


@pytest.fixture
def steered(old_run):
    """A run whose third trial is under way: its folder, and what makes the searcher and the steering of an attempt."""
    folder = old_run("interrupted")
    _, spec = read_run(folder)

    def attempt() -> tuple[JournaledSearcher, Steering]:
        inner = make_searcher("random", space=spec.to_space(), metric="accuracy", mode="max", seed=1)
        searcher = JournaledSearcher(inner, str(folder), metric="accuracy", mode="max", trials=spec.search.trials)
        searcher.catch_up()
        run = SimpleNamespace(spec=spec, folder=folder, keeper=None, trials=0, progress=Progress(quiet=True))
        return searcher, Steering(run, searcher, SimpleNamespace(total=0))

    return SimpleNamespace(folder=folder, attempt=attempt)


def proposals(searcher: JournaledSearcher, count: int) -> list[dict]:
    """What is proposed after the two trials that ended and the third, which goes on."""
    named = [searcher.suggest(str(number)) for number in range(3 + count)]
    return named[3:]


def told(folder) -> list[tuple[str, str]]:
    return [(answer["state"], answer["told"]) for answer in answers(folder).values()]


def test_a_trial_that_is_stopped_is_marked_for_its_host(steered) -> None:
    stop_trial(steered.folder, 3)
    _, steering = steered.attempt()
    steering.look()
    key = list(Journal(steered.folder).started())[2]
    assert asked_to_stop(steered.folder, key) and not waiting(steered.folder)
    assert told(steered.folder) == [("taken", "trial 3 stops at its next step and is scored as it stands")]


def test_a_trial_that_ended_meanwhile_is_refused(steered) -> None:
    stop_trial(steered.folder, 3)
    key, start = list(Journal(steered.folder).started().items())[2]
    Journal(steered.folder).finish(key, start.config, {"accuracy": 0.5})
    steered.attempt()[1].look()
    assert told(steered.folder) == [("refused", "the trial is over")]


def test_a_configuration_that_was_asked_for_is_next_within_the_space_and_outside(steered) -> None:
    searcher, steering = steered.attempt()
    add_trial(steered.folder, {"variant": "rslora", "learning_rate": 0.005})
    steering.look()
    searcher.trials = 10
    (inside,) = proposals(searcher, 1)
    assert (inside["variant"], inside["learning_rate"]) == ("rslora", 0.005)
    add_trial(steered.folder, {"rank": 3})
    steering.look()
    outside = searcher.suggest("outside")
    assert outside["rank"] == 3
    before = len(searcher.inner.observations)
    searcher.on_trial_complete("outside", {"accuracy": 0.5})
    assert searcher.finished == 1 and len(searcher.inner.observations) == before


def test_a_configuration_is_taken_once(steered) -> None:
    add_trial(steered.folder, {"rank": 3})
    add_trial(steered.folder, {"rank": 3})
    steered.attempt()[1].look()
    assert [state for state, _ in told(steered.folder)] == ["taken", "refused"]


@pytest.mark.parametrize("changes", [{"rank": 3}, {"variant": "rslora", "learning_rate": 0.005}], ids=["outside", "in"])
def test_what_was_taken_and_had_not_begun_is_tried_by_who_goes_on(steered, changes) -> None:
    """Whoever took it died right after the answer."""
    add_trial(steered.folder, changes)
    (request,) = waiting(steered.folder)
    book(steered.folder, request, taken=True, told="tried next")
    searcher, steering = steered.attempt()
    steering.go_on()
    searcher.trials = 10
    named = [searcher.suggest(str(number)) for number in range(4)]
    assert request.key in map(trial_key, named)


def test_what_had_begun_outside_the_space_goes_on(steered) -> None:
    add_trial(steered.folder, {"rank": 3})
    (request,) = waiting(steered.folder)
    book(steered.folder, request, taken=True, told="tried next")
    Journal(steered.folder).append("start", request.key, config=dict(request.config))
    searcher, steering = steered.attempt()
    steering.go_on()
    searcher.trials = 10
    # The third trial and this one, each once; then what the searcher chooses.
    named = [trial_key(searcher.suggest(str(number))) for number in range(6)]
    assert named.count(request.key) == 1


def test_the_number_of_trials_is_kept_in_the_runs_spec(steered) -> None:
    change_trials(steered.folder, 6)
    searcher, steering = steered.attempt()
    steering.look()
    assert searcher.trials == load(steered.folder / "spec.yaml").search.trials == 6
    assert run_status(steered.folder)["trials"] == 6


def test_the_end_stops_what_runs_and_no_trial_follows(steered) -> None:
    end_search(steered.folder)
    searcher, steering = steered.attempt()
    steering.look()
    assert asked_to_stop(steered.folder, list(Journal(steered.folder).started())[2])
    assert [searcher.suggest("a") is not None, searcher.suggest("b") is not None] == [True, True]  # from the journal
    assert searcher.suggest("c") == "FINISHED"
    assert load(steered.folder / "spec.yaml").search.trials == 3


def test_a_request_of_another_kind_is_refused(steered) -> None:
    (steered.folder / "requests").mkdir()
    (steered.folder / "requests" / "9.json").write_text('{"what": "dance", "id": "9"}')
    steered.attempt()[1].look()
    assert told(steered.folder) == [("refused", "'dance' is nothing that can be asked of a search")]


def test_what_comes_after_the_search_is_refused(steered) -> None:
    add_trial(steered.folder, {"rank": 3})
    steered.attempt()[1].refuse()
    assert told(steered.folder) == [("refused", "the search is over")]


def test_a_run_that_goes_on_does_what_was_asked_of_it(old_run, ray_local, capsys) -> None:
    """The third trial is stopped, a configuration outside the space is next, and five trials are enough."""
    run = old_run("interrupted")
    stop_trial(run, 3)
    add_trial(run, {"rank": 3, "learning_rate": 4e-3})
    change_trials(run, 5)
    summary = experiment.resume(run)
    table = trial_table(run)
    assert (summary["trials"], summary["asked"], len(table)) == (5, 5, 5)
    assert table["status"][2] == "stopped" and table["samples"][2] < table["samples"][0]
    assert (table["rank"][3], table["learning_rate"][3]) == (3, 4e-3) and table["accuracy"].notna().all()
    assert not (run / "requests").exists() and not (run / "stops").exists()
    assert "asked to stop a trial: trial 3 stops at its next step" in capsys.readouterr().err


@pytest.mark.real
def test_a_trial_that_runs_is_stopped_from_another_process(write_spec, start_raylora, tmp_path) -> None:
    file = write_spec(search__trials=2, train__epochs=5000, final={"enabled": False})
    run, process = tmp_path / "runs" / "run", start_raylora("tune", file)
    deadline = time.monotonic() + 240
    try:
        for number in (1, 2):
            while not (run / "trials.jsonl").exists() or len(Journal(run).started()) < number:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
            assert stop_trial(run, number)["state"] in ("taken", "waiting")
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert list(trial_table(run)["status"]) == ["stopped", "stopped"]
