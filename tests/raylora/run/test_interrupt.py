"""Ctrl-C in a run: what is said, what is kept, and that it is obeyed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


# What a run says as each of its parts begins, in the order of a run; the last one is `finish`, with a trial missing.
MOMENTS = ("data: reading train", "hosts: loading the model", "trial 1: ", "trial 2: ", "training ...")


def pressed_at(process, moment: str, presses: int, kept: Path | None) -> str:
    """Presses Ctrl-C once a line with `moment` in it was printed, and a file is in `kept`; what was said from there."""
    for line in process.stdout:
        if moment in line:
            break
    deadline = time.monotonic() + 60
    while kept and not list(kept.glob("[!.]*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
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
    """One run, stopped in each of its parts, by two key presses and by one in turn, going on from there each time.

    `finish` ends it with the trials that there are, of more that were asked for.
    """
    train = {"samples": 1200, "checkpoint_every_s": 0.2}
    file = write_spec(train=train, search__trials=3, final={"samples": 1200}, task__validation_rows=8)
    run = tmp_path / "runs" / "run"
    command = ("tune", file)
    for moment, presses in zip(MOMENTS, itertools.cycle((2, 1)), strict=False):
        in_a_trial = moment.startswith("trial")  # something of it is kept
        output = pressed_at(start_raylora(*command), moment, presses, run / "checkpoints" if in_a_trial else None)
        last = output.strip().splitlines()[-1]
        assert last.startswith(f"raylora: interrupted; `raylora resume {run}` goes on, `raylora finish {run}` ends")
        assert "Traceback" not in output
        assert not (run / "summary.json").exists()
        assert moment == MOMENTS[-1] or not (run / "final").exists()
        command = ("finish" if moment in MOMENTS[-2:] else "resume", run)
    rows = Journal(run).rows()
    assert any(row["event"] == "continue" for row in rows) and any((run / "checkpoints").iterdir())
    process = start_raylora(*command)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0 and "Traceback" not in output, output
    rows = Journal(run).rows()
    started, finished = ([row["key"] for row in rows if row["event"] == event] for event in ("start", "finish"))
    assert len(started) == len(set(started)) == 2 and finished == started[:1]
    assert (run / "summary.json").exists() and (run / "adapter").exists()
