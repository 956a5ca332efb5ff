from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from trainables.journal import Ending, Journal, trial_key
from trainables.protocols import TrainSettings, TrialSetup
from trainables.rows import Rows
from trainables.testing import ExactMatch, make_tiny_tokenizer

KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": 1e-3, "batch_size": 4, "dropout": 0.1}


def trials(count: int, **knobs) -> list[dict]:
    return [{**KNOBS, "learning_rate": 1e-3 * (k + 1), "batch_size": 2 + k, **knobs} for k in range(count)]


@pytest.fixture
def tables(train_rows, tmp_path) -> list:
    table, files = pa.Table.from_pylist(train_rows), []
    for name, part in (("train", table), ("validation", table.slice(0, 6))):
        files.append(Rows([str(tmp_path / f"{name}.arrow")]))
        with pa.ipc.new_file(files[-1].parts[0], part.schema) as writer:
            writer.write_table(part)
    return files


@pytest.fixture
def make_setup(tiny_model, tables, tmp_path):
    def make(folder: str = "run", pack: int = 4, **settings) -> TrialSetup:
        (tmp_path / folder).mkdir(exist_ok=True)
        return TrialSetup(
            model_folder=str(tiny_model),
            scorer=ExactMatch(),
            settings=TrainSettings(**{"samples": 24, "reports": 2, **settings}),
            train=tables[0],
            validation=tables[1],
            run_dir=str(tmp_path / folder),
            dtype="float32",
            pack=pack,
        )

    return make


@pytest.fixture
def make_pack(base, make_setup):
    from trainables.packed.pack import Pack

    def make(*args, **settings) -> Pack:
        return Pack(make_setup(*args, **settings), base, make_tiny_tokenizer(), where="host-0")

    return make


def run_all(pack, configurations) -> list[list]:
    """Every trial to its end, all at once; the answers of each."""

    def run(place: int) -> list:
        answers = []
        while not answers or not (isinstance(answers[-1], Ending) or answers[-1]["done"]):
            answers.append(pack.advance(f"owner-{place}", configurations[place]))
        return answers

    with ThreadPoolExecutor(len(configurations)) as threads:
        return list(threads.map(run, range(len(configurations))))


def finished(folder: Path) -> dict:
    return {key: end.metrics for key, end in Journal(folder).concluded().items()}


def test_trials_of_a_pack_report_what_they_report_one_at_a_time(base, make_setup, make_pack) -> None:
    from trainables.session import TrialSession

    alone = make_setup("alone")
    asked = [*trials(3), {**KNOBS, "variant": "dora"}, {**KNOBS, "variant": "full", "learning_rate": 1e-4}]
    session = TrialSession(alone, base, make_tiny_tokenizer())
    for knobs in asked:
        assert session.begin(knobs) is None
        while not session.advance()["done"]:
            pass
    answers = run_all(make_pack("packed"), asked)
    expected, found = finished(Path(alone.run_dir)), finished(Path(alone.run_dir).parent / "packed")
    assert found.keys() == expected.keys() == {trial_key(knobs) for knobs in asked}
    assert not [own[-1] for own in answers if isinstance(own[-1], Ending)]
    for key, metrics in expected.items():
        for name in ("loss", "validation_loss", "accuracy", "samples", "tokens", "step"):
            assert found[key][name] == pytest.approx(metrics[name], abs=1e-4), name
    assert [len(own) for own in answers] == [2] * 5
    assert all(own[-1]["train_s"] > 0 and own[-1]["eval_s"] > 0 for own in answers)


def test_trials_whose_reports_are_due_at_about_the_same_time_are_scored_together(make_pack, monkeypatch) -> None:
    from trainables.packed import pack as module

    real, scored = module.evaluate_together, []

    def watched(trunk, runs, *others):
        scored.append(sorted((run.samples, run.batch_size) for run in runs))
        return real(trunk, runs, *others)

    monkeypatch.setattr(module, "evaluate_together", watched)
    pack = make_pack(samples=96, reports=2)
    # The second one's batches do not meet the half: it goes two samples beyond.
    answers = run_all(pack, [*trials(1, batch_size=4), *trials(1, batch_size=5, dropout=0.0)])
    assert [len(own) for own in answers] == [2, 2]
    assert scored == [[(48, 4), (50, 5)], [(96, 4), (96, 5)]]


def test_an_evaluation_that_fails_together_is_made_one_by_one(make_pack, monkeypatch) -> None:
    from trainables.packed import pack as module

    real = module.evaluate_together

    def tight(trunk, runs, *others):
        if len(runs) > 1:
            raise RuntimeError("CUDA out of memory")
        if runs[0].batch_size == 3:
            raise RuntimeError("cannot be scored")
        return real(trunk, runs, *others)

    monkeypatch.setattr(module, "evaluate_together", tight)
    first, second, third = run_all(make_pack(reports=1), trials(3))
    assert first[-1]["done"] and third[-1]["done"] and second[-1].message == "RuntimeError: cannot be scored"


def test_a_trial_that_diverges_or_fails_leaves_and_the_others_go_on(make_pack, make_setup, monkeypatch) -> None:
    from trainables.variants.lora_plus import LoraPlus

    def broken(self, step: int) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(LoraPlus, "after_backward", broken)
    wild = {**KNOBS, "learning_rate": 1e30}
    asked = [*trials(2), wild, {**KNOBS, "variant": "lora_plus"}, {**KNOBS, "variant": "pissa", "rank": 4096}]
    first, second, diverged, failed, impossible = run_all(make_pack(pack=5), asked)
    assert diverged[-1]["diverged"] and diverged[-1]["accuracy"] == 0.0
    assert failed[-1].message == "RuntimeError: broken on purpose" and failed[-1].kind == "failed"
    assert impossible[-1].kind == "infeasible"
    for own in (first[-1], second[-1]):
        assert own["done"] and not own["diverged"] and math.isfinite(own["loss"])


def test_memory_that_runs_out_makes_the_passes_smaller_and_not_the_trials(make_pack, monkeypatch) -> None:
    from trainables.packed import pack as module

    real, sizes = module.make_pass, []

    def tight(trunk, runs, pad_id):
        sizes.append(len(runs))
        if len(runs) > 2:
            for run in runs[:1]:
                for parameter in run.parameters:  # a pass may fail half-way
                    parameter.grad = torch.full_like(parameter, 3.0)
            raise RuntimeError("CUDA out of memory")
        return real(trunk, runs, pad_id)

    asked = trials(4, batch_size=4)
    free = run_all(make_pack("free"), asked)
    monkeypatch.setattr(module, "make_pass", tight)
    pack = make_pack("tight")
    answers = run_all(pack, asked)
    assert max(sizes) > 2 and sizes[-1] <= 2
    for own, expected in zip(answers, free, strict=True):
        assert own[-1]["loss"] == pytest.approx(expected[-1]["loss"], abs=1e-4)


def test_more_trials_than_places_wait_until_one_is_over(make_pack) -> None:
    pack, most = make_pack(pack=2), []
    real = pack._turn

    def turn() -> None:
        most.append(len(pack.members))
        real()

    pack._turn = turn
    assert all(own[-1]["done"] for own in run_all(pack, trials(5, batch_size=4)))
    assert max(most) == 2 and not pack.members


def test_a_stopped_trial_leaves_at_once_and_goes_on_later_from_there(make_pack, make_setup) -> None:
    pack = make_pack()
    one, other = trials(2)
    uninterrupted = run_all(make_pack("whole"), [one])[0]
    assert not pack.advance("a", one)["done"]
    pack.end("a")
    assert not pack.members
    assert pack.advance("b", other)["samples"] > 0
    again = pack.advance("c", one)
    assert again["done"] and again["loss"] == pytest.approx(uninterrupted[-1]["loss"], abs=1e-4)
    events = [row["event"] for row in Journal(pack.setup.run_dir).rows() if row["key"] == trial_key(one)]
    assert events == ["start", "report", "continue", "finish"]


def test_the_base_is_as_it_was_after_trials_that_rewrite_it_alone(make_pack, base) -> None:
    from trainables.variants.core.snapshot import fingerprint

    before = fingerprint(base)
    pack = make_pack()
    run_all(pack, [{**KNOBS, "variant": name, "learning_rate": 1e-3} for name in ("pissa", "olora", "lora_ga", "full")])
    assert fingerprint(base) == before == fingerprint(pack._twins[0])
