from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from raylora.bench.chaos import harms


@pytest.mark.skipif(harms.unavailable("read-only") is not None, reason="a matter of the file system, for root")
def test_a_folder_is_read_only_for_the_duration(tmp_path) -> None:
    folder, file = tmp_path / "run", tmp_path / "run" / "trials.jsonl"
    folder.mkdir()
    file.write_text("a")
    with harms.read_only(folder):
        for change in (lambda: file.write_text("b"), (folder / "other").touch, file.unlink):
            with pytest.raises(PermissionError):
                change()
    file.write_text("c")
    (folder / "other").touch()


def test_only_a_process_of_the_search_is_killed(tmp_path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)", "RayTrainWorker"]
    mine, other = (
        subprocess.Popen(command, env={**os.environ, harms.MARK: str(tmp_path / name)}) for name in ("mine", "other")
    )
    try:
        while not harms.processes(str(tmp_path / "mine"), "RayTrainWorker"):
            pass  # it has not become that program yet
        assert harms.kill_one(str(tmp_path / "mine"), "worker", random.Random(0))
        assert mine.wait(10) == -9 and other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_there_is_nothing_to_kill_where_no_search_runs(tmp_path) -> None:
    assert not harms.kill_one(str(tmp_path), "host", random.Random(0))


def test_processes_with_another_clock_sleep_as_long_as_they_are_told(tmp_path) -> None:
    """libfaketime breaks Python's own sleep."""
    environment = {**os.environ, **harms.Clock(tmp_path / "clock").environment}
    del environment["LD_PRELOAD"]  # not everywhere
    code = "import time; a = time.monotonic(); told = time.sleep(0.2); print(told, time.monotonic() - a, time.sleep)"
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    told, slept, function = printed.stdout.split(maxsplit=2)
    assert told == "None" and float(slept) >= 0.2 and "built-in" not in function


def test_the_clock_jumps_from_where_it_was(tmp_path) -> None:
    clock, draw = harms.Clock(tmp_path / "clock"), random.Random(0)
    told = []
    for _ in range(2):
        clock.jump(draw)
        told.append(int((tmp_path / "clock").read_text()))
    assert told[0] != 0 and abs(told[1] - told[0]) in {600, 86400}
