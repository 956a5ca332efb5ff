"""The process that vLLM runs in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raylora.run.engine.child import Child, ChildDied, Refused

ROOT = Path(__file__).resolve().parents[4]
# Starts an engine as an actor does, and says which process it is.
OWNER = """
import sys, time
from pathlib import Path
from raylora.run.engine.child import Child
python, model, log = sys.argv[1:]
print(Child(python, {how}, Path(log)).pid, flush=True)
time.sleep(60)
"""


def how(model: Path) -> dict[str, object]:
    sizes = {"rank": 8, "length": 64, "gpus": 1, "gpu_memory": 0.9, "seed": 0}
    return {"model": str(model), "tokenizer": str(model), "dtype": "float32", **sizes}


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_libraries_print_goes_to_the_log_and_not_between_the_answers(vllm, tiny_model, tmp_path) -> None:
    child = Child(str(vllm), how(tiny_model), tmp_path / "engine.log")
    try:
        assert child.version == "0.0" and "this goes to the log" in (tmp_path / "engine.log").read_text()
    finally:
        child.close()
    assert not is_there(child.pid)


def test_a_model_that_vllm_refuses_is_told_in_its_words_and_in_one_line(vllm, tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"refused": true}')
    with pytest.raises(Refused, match=r"^no kernel for it$"):
        Child(str(vllm), how(tmp_path), tmp_path / "engine.log")


def test_one_that_does_not_come_up_says_its_last_line(tmp_path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 4\n")
    python.chmod(0o755)
    with pytest.raises(ChildDied, match="status 4: no such library"):
        Child(str(python), how(tmp_path), tmp_path / "engine.log")


def test_it_ends_with_the_process_that_started_it(vllm, tiny_model, tmp_path) -> None:
    script = OWNER.replace("{how}", repr(how(tiny_model)))
    command = [sys.executable, "-c", script, str(vllm), str(tiny_model), str(tmp_path / "engine.log")]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert owner.stdout is not None
    with owner.stdout:
        pid = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    for _ in range(200):
        if not is_there(pid):
            return
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    pytest.fail("the engine outlived its owner")
