from __future__ import annotations

import hashlib
import json
import pickle
from typing import Any

import pytest

from raylora.run.journaled import JournaledSearcher
from searchers import make_searcher
from searchers.space import Space
from trainables.journal import Journal, trial_key

SPACE = {"rank": [2, 4, 8, 16], "learning_rate": [1e-4, 1e-3]}


@pytest.fixture
def fresh(tmp_path):
    """Makes the searcher of a run in `tmp_path`, as each attempt does."""

    def make() -> JournaledSearcher:
        space = Space.from_dict(SPACE)
        inner = make_searcher("random", space=space, metric="accuracy", mode="max", seed=3)
        return JournaledSearcher(inner, str(tmp_path), metric="accuracy", mode="max")

    return make


@pytest.fixture
def booked(fresh, tmp_path):
    """A searcher whose first trial ended, and that trial's configuration."""
    searcher = fresh()
    config = searcher.suggest("a")
    journal = Journal(tmp_path)
    journal.append("start", trial_key(config), config=config, trial_id="a")
    journal.finish(trial_key(config), config, {"accuracy": 0.5, "accuracy_se": 0.125, "samples": 10})
    searcher.on_trial_complete("a", {"accuracy": 0.5, "accuracy_se": 0.125, "samples": 10})
    return searcher, config


def caught_up(searcher: JournaledSearcher) -> list[str]:
    said: list[str] = []
    searcher.catch_up(said.append)
    return said


def facts(searcher: JournaledSearcher) -> list[tuple[Any, ...]]:
    assert searcher.inner is not None
    return [(o.value, o.error, o.samples) for o in searcher.inner.observations]


@pytest.mark.parametrize("known", [True, False])
def test_a_searcher_catches_up_with_results_that_its_state_missed(fresh, tmp_path, known) -> None:
    journal, first = Journal(tmp_path), fresh()
    done, running = first.suggest("a"), first.suggest("b")
    for trial_id, config in (("a", done), ("b", running)):
        journal.append("start", trial_key(config), config=config, trial_id=trial_id)
    journal.finish(trial_key(done), done, {"accuracy": 0.5, "samples": 10})
    if known:
        first.on_trial_complete("a", {"accuracy": 0.5, "samples": 10})
    unheard = first.suggest("c")  # proposed, never started

    second = fresh()
    second.catch_up()
    assert [o.value for o in second.inner.observations] == [0.5]
    assert second.suggest("d") == done
    second.on_trial_complete("d", {"accuracy": 0.5})
    assert len(second.inner.observations) == 1
    assert [second.suggest("e"), second.suggest("f")] == [running, unheard]
    rest = [second.suggest(str(i)) for i in range(5)]
    assert len({tuple(c.items()) for c in [done, running, unheard, *rest]}) == 8
    assert second.suggest("z") == "FINISHED"


def test_a_result_that_the_state_missed_comes_with_its_error_and_its_loss(fresh, tmp_path) -> None:
    first = fresh()
    config = first.suggest("a")
    journal = Journal(tmp_path)
    journal.append("start", trial_key(config), config=config)
    metrics = {"accuracy": 0.5, "accuracy_se": 0.125, "samples": 10, "validation_loss": 1.5}
    journal.finish(trial_key(config), config, metrics)
    second = fresh()
    assert caught_up(second) == []
    assert facts(second) == [(0.5, 0.125, 10)]
    assert [o.loss for o in second.inner.observations] == [1.5]


def test_a_failed_trial_that_the_state_missed_is_not_proposed_again(fresh, tmp_path) -> None:
    config = fresh().suggest("a")
    Journal(tmp_path).append("start", trial_key(config), config=config)
    Journal(tmp_path).fail(trial_key(config), config, "rank 512 is larger")
    second = fresh()
    second.catch_up()
    second.suggest("replay")
    assert config not in [second.suggest(str(i)) for i in range(7)]


def test_the_state_goes_on_where_it_stopped(booked, fresh) -> None:
    first, config = booked
    second = fresh()
    assert caught_up(second) == []
    assert second.suggest("replay") == config
    assert second.suggest("b") == first.suggest("b")


def test_either_state_of_a_writer_that_died_between_mark_and_state_is_read(booked, fresh, tmp_path) -> None:
    first, _ = booked
    before = (tmp_path / "searcher.pkl").read_bytes()
    first.suggest("b")
    (tmp_path / "searcher.pkl").write_bytes(before)
    assert caught_up(fresh()) == []


def _without_a_mark(folder) -> None:
    (folder / "searcher.json").unlink()


def _of_another_hash(folder) -> None:
    with (folder / "searcher.pkl").open("ab") as file:
        file.write(b"more")


def _torn(folder) -> None:
    state = folder / "searcher.pkl"
    state.write_bytes(state.read_bytes()[:20])


def _of_moved_classes(folder) -> None:
    data = b"cmoved.away\nGone\n."
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(data)
    (folder / "searcher.pkl").write_bytes(data)
    (folder / "searcher.json").write_text(json.dumps({"sha256": [hashlib.sha256(data).hexdigest()]}))


def _linked(folder) -> None:
    (folder / "searcher.pkl").rename(folder / "elsewhere.pkl")
    (folder / "searcher.pkl").symlink_to(folder / "elsewhere.pkl")


def _writable_for_all(folder) -> None:
    (folder / "searcher.pkl").chmod(0o666)


@pytest.mark.parametrize(
    "harm", [_linked, _writable_for_all, _without_a_mark, _of_another_hash, _torn, _of_moved_classes]
)
def test_a_state_that_is_no_use_is_rebuilt_from_the_journal_and_told_in_one_line(booked, fresh, tmp_path, harm) -> None:
    harm(tmp_path)
    second = fresh()
    (line,) = caught_up(second)
    assert line.startswith("searcher: rebuilt from the journal, since searcher.pkl") and "\n" not in line
    assert facts(second) == [(0.5, 0.125, 10)]
    assert second.suggest("replay") == booked[1]
    assert booked[1] not in [second.suggest(str(i)) for i in range(7)]


def test_a_state_of_another_user_is_not_read(booked, fresh, monkeypatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    (line,) = caught_up(fresh())
    assert line.endswith("since searcher.pkl cannot be read (it belongs to another user)")


def test_a_state_without_a_mark_is_never_unpickled(booked, fresh, tmp_path) -> None:
    (tmp_path / "searcher.json").unlink()
    (tmp_path / "searcher.pkl").write_bytes(b"cbuiltins\nprint\n(Vunpickled\ntR.")
    (line,) = caught_up(fresh())
    assert "has no searcher.json" in line


def test_the_first_write_after_a_rebuild_is_read_again(booked, fresh, tmp_path) -> None:
    (tmp_path / "searcher.json").unlink()
    second = fresh()
    caught_up(second)
    second.suggest("replay")
    second.suggest("b")
    assert caught_up(fresh()) == []


def test_what_tune_kept_is_never_unpickled_and_nothing_is_lost(booked, fresh, tmp_path) -> None:
    first, _ = booked
    first.save(str(tmp_path / "snapshot"))
    (tmp_path / "planted").write_bytes(b"cbuiltins\nexit\n(Vunpickled\ntR.")
    for kept in ("snapshot", "planted"):
        second = fresh()
        second.restore(str(tmp_path / kept))
        assert facts(second) == [(0.5, 0.125, 10)]
    assert second.suggest("b") == first.suggest("b")


def test_a_restored_searcher_without_a_state_knows_the_journals_results(booked, fresh, tmp_path) -> None:
    (tmp_path / "searcher.pkl").unlink()
    second = fresh()
    second.restore(str(tmp_path / "gone"))
    assert facts(second) == [(0.5, 0.125, 10)]


# -- how many trials ---------------------------------------------------------------------------------------------------


def quota(tmp_path, trials: int) -> JournaledSearcher:
    space = Space.from_dict({"rank": [1, 2, 4, 8, 16, 32, 64, 128]})
    inner = make_searcher("random", space=space, metric="accuracy", mode="max", seed=0, worst=0.0)
    return JournaledSearcher(inner, str(tmp_path), metric="accuracy", mode="max", trials=trials)


def test_a_state_that_cannot_be_written_stops_no_search(fresh, tmp_path, monkeypatch) -> None:
    searcher, journal = fresh(), Journal(tmp_path)
    first = searcher.suggest("a")
    kept = searcher.state_path.read_bytes()

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("raylora.run.journaled.replace_text", full)
    second = searcher.suggest("b")
    for trial_id, config in (("a", first), ("b", second)):
        journal.append("start", trial_key(config), config=config, trial_id=trial_id)
        journal.finish(trial_key(config), config, {"accuracy": 0.5, "samples": 10})
        searcher.on_trial_complete(trial_id, {"accuracy": 0.5, "samples": 10})
    assert searcher.state_path.read_bytes() == kept
    again = fresh()
    assert caught_up(again) == [] and sorted(facts(again)) == sorted(facts(searcher))
    assert [again.suggest("c"), again.suggest("d")] == [first, second], "they are answered from the journal"


def test_a_failed_trial_is_replaced_until_enough_have_finished(tmp_path) -> None:
    searcher = quota(tmp_path, 2)
    assert isinstance(searcher.suggest("a"), dict) and isinstance(searcher.suggest("b"), dict)
    assert searcher.suggest("c") is None  # as long as two may finish
    searcher.on_trial_complete("a", {"accuracy": 0.0, "failed": True})
    assert isinstance(searcher.suggest("c"), dict)
    searcher.on_trial_complete("b", {"accuracy": 0.5})
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("c", {"accuracy": 0.25})
    assert searcher.suggest("d") == "FINISHED"
    assert [o.value for o in searcher.inner.observations] == [0.0, 0.5, 0.25]


def test_as_many_failures_as_trials_end_the_search(tmp_path) -> None:
    searcher = quota(tmp_path, 4)
    for name in "abcde":
        assert isinstance(searcher.suggest(name), dict)
        searcher.on_trial_complete(name, {"accuracy": 0.5 if name == "a" else 0.0, "failed": name != "a"})
    assert searcher.suggest("f") == "FINISHED" and not searcher.hopeless


def test_three_failures_at_the_start_are_hopeless(tmp_path) -> None:
    searcher = quota(tmp_path, 8)
    for name in "abc":
        assert not searcher.hopeless
        searcher.suggest(name)
        searcher.on_trial_complete(name, error=True)
    assert searcher.hopeless and searcher.suggest("d") == "FINISHED"
