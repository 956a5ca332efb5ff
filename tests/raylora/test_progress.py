from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from raylora import progress
from raylora.progress import Progress, Standing, beats, view

KNOBS = {"variant": "lora", "rank": 8, "alpha_ratio": 2, "learning_rate": 2e-4}


@pytest.fixture
def live():
    """What a host in the middle of a trial says."""

    def make(**changes):
        told = {"name": "", "key": "k", "knobs": KNOBS, "phase": "training", "samples": 40, "of": 88, "loss": 2.125,
                "left_s": 31.0, "time": time.time()}  # fmt: skip
        return {"host-0": {**told, **changes}}

    return make


def drawn(standing: Standing, live) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(view(standing, live, "accuracy"))
    return console.file.getvalue()


def test_the_view_has_trials_with_loss_and_time_left(live) -> None:
    told = drawn(Standing("search", 3, 12, left_s=600), live())
    assert "3 of 12 trials" in told and "10 min of the budget left" in told
    assert (
        "lora rank=8 alpha=16 lr=0.0002" in told and "40/88" in told and "2.125" in told and "about 31 s left" in told
    )


def test_the_view_compares_the_best_with_the_default_recipe(live) -> None:
    standing = Standing("search", 3, 12, best=0.5, default=0.25, recipe=KNOBS, searcher="searcher tpe: knows 3 results")
    told = drawn(standing, live())
    assert "best accuracy 0.5000 (default recipe: 0.2500)" in told and "knows 3 results" in told
    assert "default recipe: not tried yet" in drawn(Standing("search", 1, 2, best=0.5, recipe=KNOBS), {})


def test_plain_lines_say_the_same(live) -> None:
    (line,) = beats(Standing("search", left_s=60.0), live())
    assert "40 of 88 samples, loss 2.125, about 31 s left; 60 s of the budget left" in line
    assert beats(Standing("search", searcher="searcher tpe: choosing"), {}) == ["  ... searcher tpe: choosing"]


def test_what_is_old_is_not_told_as_new(live) -> None:
    (line,) = beats(Standing("search"), live(time=time.time() - 20))
    assert "about 11 s left" in line
    (line,) = beats(Standing("search"), live(phase="scoring", time=time.time() - 20))
    assert "scoring for 20 s" in line


def test_a_recipe_of_the_final_stage_is_named(live) -> None:
    (line,) = beats(Standing("final stage"), live(name="best-0"))
    assert "best-0 lora rank=8" in line


def test_piped_output_has_lines_now_and_then(live, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(progress, "read_live", lambda folder: live())
    with Progress("accuracy").watching(tmp_path, lambda: Standing("search")):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and all("40 of 88 samples" in line for line in lines)


def test_quiet_is_quiet(live, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(progress, "read_live", lambda folder: live())
    with Progress("accuracy", quiet=True).watching(tmp_path, lambda: Standing("search")):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_terminal_is_drawn_on_unless_ci_is_set(live, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(progress, "read_live", lambda folder: live())
    monkeypatch.delenv("CI", raising=False)
    shown = Progress("accuracy")
    shown.console = Console(file=io.StringIO(), force_terminal=True, width=140)
    with shown.watching(tmp_path, lambda: Standing("search", 3, 12)):
        shown.say("a line above")
        time.sleep(0.7)
    told = shown.console.file.getvalue()
    assert "3 of 12 trials" in told and "a line above" in told
    monkeypatch.setenv("CI", "true")
    assert not shown.lively


NOTEBOOK = """
import time
from pathlib import Path
from pathlib import Path

from raylora import progress

progress.HEARTBEAT_S = 0.1
shown = progress.Progress("accuracy")
shown.say("data: 40 train rows")
with shown.watching(Path("."), lambda: progress.Standing("search", searcher="searcher tpe: choosing")):
    time.sleep(1)
progress.Progress("accuracy", quiet=True).say("not this")
"""


@pytest.mark.real
def test_in_a_notebook_the_lines_are_shown_below_the_cell(monkeypatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    told = [output["data"]["text/plain"].strip() for output in notebook.cells[0].outputs]
    assert told[0] == "data: 40 train rows" and set(told[1:]) == {"... searcher tpe: choosing"}
