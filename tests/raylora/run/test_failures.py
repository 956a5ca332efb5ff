"""Processes that die and memory that runs out beneath a run: a line each, and an answer from the rest."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raylora.run.trials import trial_table
from trainables.journal import ERRORS, Journal

MARK = "RAYLORA_TEST_RUN"


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """The run's folder; the processes of its run carry its name in their environment."""
    folder = tmp_path / "runs" / "run"
    monkeypatch.setenv(MARK, str(folder))
    return folder


def hosts(run: Path) -> list[int]:
    """Processes of the run that hold a model."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = f"{MARK}={run}".encode() in (process / "environ").read_bytes().split(b"\0")
            if mine and b"ray::ModelHost" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def until(condition: Callable[[], object], process, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.05)


def started(run: Path) -> list[str]:
    return [row["key"] for row in Journal(run).rows() if row["event"] == "start"]


def ended_well(process, run: Path) -> str:
    """What the run printed: it has an answer, and no traceback is on the screen."""
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert "Traceback" not in output and (run / "summary.json").is_file() and (run / "adapter").is_dir()
    return output


@pytest.mark.real
def test_a_trial_whose_host_is_killed_is_a_line_and_is_replaced(write_spec, start_raylora, run) -> None:
    train = {"samples": 2000, "checkpoint_every_s": 60.0}
    file = write_spec(train=train, search__trials=2, search__max_failures=0, final={"samples": 8})
    process = start_raylora("tune", file)
    until(lambda: started(run), process)
    [host] = hosts(run)
    os.kill(host, signal.SIGKILL)
    output = ended_well(process, run)
    assert list(trial_table(run)["status"]) == ["failed", "finished", "finished"]
    assert "failed: its host died 1 times; the last time: its process was ended from outside" in output


def with_address_space(spare: int, write_spec, start_raylora, run: Path):
    """A run whose host may, as its first trial starts, take so many MB more than it has."""
    train = {"samples": 256, "micro_batch_tokens": 65536}
    # Without a final stage: what a host loads for the first time there may need more than is left of its addresses.
    file = write_spec(train=train, search__trials=2, space__batch_size=[4, 256], final={"enabled": False})
    process = start_raylora("tune", file)
    until(lambda: started(run), process)
    for host in hosts(run):
        size = int(Path(f"/proc/{host}/statm").read_text().split()[0]) * resource.getpagesize() + spare * 2**20
        resource.prlimit(host, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    return process


LIMITS = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="limits of other processes: a matter of the kernel"
)


@pytest.mark.real
@LIMITS
def test_an_address_space_with_little_left_ends_no_run(write_spec, start_raylora, run) -> None:
    process = with_address_space(40, write_spec, start_raylora, run)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert "Traceback" not in output and (run / "summary.json").is_file()
    assert list(trial_table(run)["status"]).count("finished") == 2


@pytest.mark.real
@LIMITS
def test_an_address_space_with_nothing_left_ends_the_run_with_the_reason(write_spec, start_raylora, run) -> None:
    process = with_address_space(0, write_spec, start_raylora, run)
    output, _ = process.communicate(timeout=400)
    assert "Traceback" not in output
    if process.returncode:  # else the host itself has died of it, and was started again without the limit
        assert process.returncode == 2
        assert set(trial_table(run)["status"]) == {"infeasible"} and "Traceback" in (run / ERRORS).read_text()
        assert (
            output.strip().splitlines()[-1].startswith("raylora: search: the first 2 trials failed; the last message")
        )


@pytest.fixture
def limited(tmp_path) -> Iterator[Callable[[int, int], None]]:
    """Put a process into a control group with so many bytes of memory; skipped where none can be made."""
    root = Path("/sys/fs/cgroup")
    second = (root / "cgroup.controllers").is_file()
    group = (root if second else root / "memory") / f"raylora-{tmp_path.name}"
    try:
        group.mkdir()
        (group / ("memory.max" if second else "memory.limit_in_bytes")).read_text()
    except OSError:
        pytest.skip("control groups of memory take root")

    def limit(process: int, size: int) -> None:
        (group / "cgroup.procs").write_text(str(process))
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(size))

    yield limit
    with contextlib.suppress(OSError):
        group.rmdir()


@pytest.mark.real
def test_a_host_that_the_kernel_ends_for_memory_begins_again_with_half_of_the_micro_batch(
    limited, write_spec, start_raylora, run
) -> None:
    train = {"samples": 2048, "micro_batch_tokens": 65536}
    file = write_spec(train=train, search__trials=2, space__batch_size=256, final={"samples": 8})
    process = start_raylora("tune", file)
    until(lambda: started(run), process)
    [host] = hosts(run)
    limited(host, 2**20)  # what it allocates from here on, the kernel answers with its killer
    until(lambda: hosts(run) != [host], process)
    output = ended_well(process, run)
    assert list(trial_table(run)["status"]).count("finished") == 2, (output, (run / ERRORS).exists())
