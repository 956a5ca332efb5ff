"""Ctrl-C in a run: what is said, what is kept, and that it is obeyed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from raylora.errors import Interrupted
from raylora.run.interrupt import interruptible
from trainables.journal import Journal


def test_one_interrupt_is_raised_with_the_line_that_says_how_to_go_on(tmp_path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=rf"`raylora resume {tmp_path}` goes on, `raylora finish"):  # noqa: PT012, SIM117
        with interruptible(tmp_path):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert signal.getsignal(signal.SIGINT) is before


STUBBORN = """
import os, signal, sys, time
from pathlib import Path
from raylora.run import interrupt
interrupt.PATIENCE_S = float(sys.argv[1])
with interrupt.interruptible(Path("somewhere")):
    for _ in range(int(sys.argv[2])):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        except KeyboardInterrupt:
            pass
    time.sleep(30)
"""


@pytest.mark.parametrize(("patience", "presses"), [("0.5", "1"), ("60", "2")])
def test_what_catches_the_interrupt_does_not_keep_the_process_nor_does_it_survive_a_second_one(
    patience, presses
) -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STUBBORN, patience, presses], capture_output=True, text=True)
    assert done.returncode == 130 and time.monotonic() - started < 25
    assert "`raylora resume somewhere` goes on" in done.stderr


@pytest.mark.real
def test_ctrl_c_before_the_first_trial_ends_keeps_all_and_finish_and_resume_go_on(
    write_spec, start_raylora, tmp_path
) -> None:
    """In the middle of the first trial, then in the second one; `finish` ends with the one that there is."""
    file = write_spec(train={"samples": 4000, "checkpoint_every_s": 0.2}, search__trials=2, final={"samples": 8})
    run = tmp_path / "runs" / "run"

    def interrupted(process, after: str) -> str:
        deadline = time.monotonic() + 240
        # In the middle of a trial: something of it is kept.
        while not (any(row["event"] == after for row in Journal(run).rows()) and list(run.glob("checkpoints/[!.]*"))):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        pressed = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and time.monotonic() - pressed < 12
        return output

    output = interrupted(start_raylora("tune", file), "start")
    assert output.strip().splitlines()[-1].startswith(f"raylora: interrupted; `raylora resume {run}` goes on")
    assert "Traceback" not in output
    assert not (run / "summary.json").exists() and not (run / "final").exists()
    assert any((run / "checkpoints").iterdir())
    interrupted(start_raylora("resume", run), "finish")
    assert any(row["event"] == "continue" for row in Journal(run).rows())
    process = start_raylora("finish", run)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert (run / "summary.json").exists() and (run / "adapter").exists()
    assert sum(row["event"] == "finish" for row in Journal(run).rows()) == 1


# What a run says as each of its parts begins, in the order of a run.
MOMENTS = ("data: reading train", "hosts: loading the model", "trial 2: ", "training ...")


def pressed_at(process, moment: str, presses: int) -> str:
    """Presses Ctrl-C once a line with `moment` in it was printed; what was printed from there on."""
    for line in process.stdout:
        if moment in line:
            break
    time.sleep(0.5)
    started = time.monotonic()
    for _ in range(presses):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - started < 10, moment
    return output


@pytest.mark.real
def test_ctrl_c_at_any_moment_returns_within_seconds_and_no_trial_is_lost_or_repeated(
    write_spec, start_raylora, tmp_path
) -> None:
    """One run, stopped in each of its parts, by one key press and by two in turn, going on from there each time."""
    train = {"samples": 400, "checkpoint_every_s": 0.2}
    file = write_spec(train=train, search__trials=3, final={"samples": 1200}, task__validation_rows=8)
    run = tmp_path / "runs" / "run"
    command = ("tune", file)
    for moment, presses in zip(MOMENTS, (2, 1, 2, 1), strict=True):
        output = pressed_at(start_raylora(*command), moment, presses)
        assert f"`raylora resume {run}` goes on, `raylora finish {run}` ends" in output and "Traceback" not in output
        assert not (run / "summary.json").exists()
        command = ("resume", run)
    process = start_raylora("finish", run)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0 and "Traceback" not in output, output
    rows = Journal(run).rows()
    for event in ("start", "finish"):
        keys = [row["key"] for row in rows if row["event"] == event]
        assert len(keys) == len(set(keys)) == 3
    assert (run / "summary.json").exists() and (run / "adapter").exists()
