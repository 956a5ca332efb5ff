from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from trainables.journal import ERRORS, Journal, trial_key
from trainables.parallel import Parallel
from trainables.protocols import TrainSettings
from trainables.saved import saved
from trainables.session import TrialSession, pick_device, pick_dtype
from trainables.stops import ask_to_stop
from trainables.store import mark, store_of
from trainables.variants.core.snapshot import fingerprint
from trainables.workers import Workers

KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": 1e-3, "batch_size": 4, "dropout": 0.0}


@pytest.fixture
def session(setup, loaded):
    """Makes a session in the run's folder, with other settings."""
    model, tokenizer = loaded
    before = fingerprint(model)

    def make(deadline: float | None = None, **settings) -> TrialSession:
        changed = replace(setup, settings=TrainSettings(**{"samples": 16, **settings}))
        return TrialSession(changed if deadline is None else replace(changed, deadline=deadline), model, tokenizer)

    yield make
    assert fingerprint(model) == before, "the base model has changed"


def events(folder) -> list[str]:
    return [row["event"] for row in Journal(folder).rows()]


def test_a_trial_is_journaled_and_then_answered_from_the_journal(session, tmp_path) -> None:
    first = session()
    assert first.begin(KNOBS) is None
    metrics = first.advance()
    assert metrics["done"] and metrics["samples"] == 16
    over = session().begin({**KNOBS, "rank": 4.0})
    assert over is not None and over.metrics["accuracy"] == metrics["accuracy"]
    assert events(tmp_path) == ["start", "finish"]


def test_a_trial_that_was_put_aside_goes_on_from_its_checkpoint(session, tmp_path) -> None:
    first = session(reports=2)
    first.begin(KNOBS)
    assert not first.advance()["done"]
    first.leave()
    second = session(reports=2)
    second.begin(KNOBS)
    assert second.advance()["done"]
    rows = Journal(tmp_path).rows()
    assert [row["event"] for row in rows] == ["start", "report", "continue", "finish"]
    assert rows[2]["from_step"] == 2 and not (tmp_path / "checkpoints" / trial_key(KNOBS)).exists()


def test_a_state_that_cannot_be_saved_costs_the_trial_nothing(session, tmp_path, monkeypatch) -> None:
    undisturbed = session(checkpoint_every_s=1e9)
    undisturbed.begin({**KNOBS, "dropout": 0.1})
    told = undisturbed.advance()
    (tmp_path / "trials.jsonl").unlink()

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainables.run.save_file", full)
    other = session(checkpoint_every_s=0.0)
    other.begin({**KNOBS, "dropout": 0.1})
    metrics = other.advance()
    assert metrics["done"] and metrics["validation_loss"] == told["validation_loss"]
    assert "its state could not be saved" in (tmp_path / ERRORS).read_text()


def test_a_trial_that_is_cut_before_its_report_reports_when_it_goes_on(session, tmp_path, monkeypatch) -> None:
    undisturbed = session(reports=2, checkpoint_every_s=1e9)
    undisturbed.begin(KNOBS)
    undisturbed.advance()
    told = undisturbed.advance()
    (tmp_path / "trials.jsonl").unlink()
    cut = session(reports=2, checkpoint_every_s=0.0)
    cut.begin(KNOBS)
    monkeypatch.setattr(cut, "report", _killed)
    with pytest.raises(KeyboardInterrupt):
        cut.advance()
    cut._close()
    on = session(reports=2)
    on.begin(KNOBS)
    assert not on.advance()["done"]
    metrics = on.advance()
    assert metrics["done"] and metrics["loss"] == told["loss"]


def _killed(*_) -> None:
    raise KeyboardInterrupt


def test_a_trial_of_a_run_in_a_store_goes_on_where_nothing_of_it_is_on_the_disk(session, tmp_path) -> None:
    mark(tmp_path, f"file://{tmp_path}/store")
    first = session(reports=2)
    first.begin(KNOBS)
    first.advance()
    first.leave()
    shutil.rmtree(tmp_path / "checkpoints")
    second = session(reports=2)
    second.begin(KNOBS)
    assert second.advance()["done"]
    assert [row.get("from_step") for row in Journal(tmp_path).rows()] == [None, None, 2, None]
    assert not [name for name in store_of(tmp_path).names() if name.startswith("checkpoints")]


def test_a_loss_that_is_not_finite_is_recorded_as_diverged_and_the_next_trial_runs(session, tmp_path) -> None:
    made, wild = session(), {**KNOBS, "learning_rate": 1e30}
    made.begin(wild)
    metrics = made.advance()
    assert metrics["diverged"] and metrics["done"] and metrics["accuracy"] == 0.0 and metrics["samples"] < 16
    assert Journal(tmp_path).concluded()[trial_key(wild)].diverged
    made.begin(KNOBS)
    assert not made.advance()["diverged"]


def test_what_the_model_cannot_have_is_an_error_line_and_is_not_tried_again(session, tmp_path) -> None:
    made, wide = session(), {**KNOBS, "variant": "pissa", "rank": 4096}
    first = made.begin(wide)
    assert first.kind == "infeasible" and first.message.startswith("variant pissa: rank 4096 exceeds")
    assert made.begin(wide).message == first.message
    assert events(tmp_path) == ["start", "error"]
    assert "Traceback" in (tmp_path / ERRORS).read_text()


class Left(Parallel):
    """A worker whose others are gone."""

    def sum(self, values):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:17840")

    def lost(self, error: Exception) -> bool:
        return Workers.lost(self, error)


def test_a_worker_that_has_lost_another_books_nothing(loaded, setup, tmp_path) -> None:
    session = TrialSession(setup, *loaded, parallel=Left())
    assert session.begin(KNOBS) is None
    with pytest.raises(RuntimeError, match="closed by peer") as caught:
        session.advance()
    with pytest.raises(RuntimeError, match="closed by peer"):
        session.abandon(KNOBS, caught.value)
    assert "error" not in {row["event"] for row in Journal(tmp_path).rows()} and not (tmp_path / ERRORS).exists()
    session._close()


def test_past_the_deadline_a_trial_is_scored_as_it_is(session, tmp_path) -> None:
    made = session(deadline=0.0)
    made.begin(KNOBS)
    metrics = made.advance()
    assert metrics["done"] and metrics["samples"] == 4 and "accuracy" in metrics
    assert Journal(tmp_path).concluded()[trial_key(KNOBS)].stopped


def test_a_trial_that_is_asked_to_stop_is_scored_as_it_is(session, tmp_path) -> None:
    made = session()
    made.begin(KNOBS)
    ask_to_stop(tmp_path, trial_key(KNOBS))
    metrics = made.advance()
    assert metrics["done"] and metrics["samples"] == 4 and "accuracy" in metrics
    assert Journal(tmp_path).concluded()[trial_key(KNOBS)].stopped


def test_nothing_advances_before_it_began(session) -> None:
    with pytest.raises(RuntimeError, match=r"call begin\(\) first"):
        session().advance()


def test_places_and_types_go_by_their_names() -> None:
    cpu = torch.device("cpu")
    assert pick_device("cpu") == cpu and pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_reports_where_the_samples_double_tell_the_loss_and_leave_a_state(session) -> None:
    one = session(samples=32, reports=4, doubling=True, checkpoint_every_s=1e9)
    assert one.begin(KNOBS) is None
    seen = []
    while True:
        metrics = one.advance()
        seen.append((metrics["samples"], "accuracy" in metrics, "validation_loss" in metrics))
        if metrics["done"]:
            break
        state = saved(one.checkpoint_folder(trial_key(KNOBS)))
        assert state is not None and json.loads((state / "position.json").read_text())["samples"] == metrics["samples"]
    assert seen == [(4, False, True), (8, False, True), (16, False, True), (32, True, True)]


def test_a_trial_that_is_put_aside_after_a_report_goes_on_as_if_it_had_not_been(session, tmp_path) -> None:
    settings = {"samples": 32, "reports": 4, "doubling": True, "checkpoint_every_s": 1e9}
    whole = session(**settings)
    whole.begin(KNOBS)
    losses = [whole.advance()["validation_loss"] for _ in range(4)]
    (tmp_path / "trials.jsonl").unlink()
    other = session(**settings)
    other.begin(KNOBS)
    again = [other.advance()["validation_loss"] for _ in range(2)]
    other.begin({**KNOBS, "learning_rate": 5e-3})
    other.advance()
    other.begin(KNOBS)
    again += [other.advance()["validation_loss"] for _ in range(2)]
    assert again == losses
