"""The process in which vLLM runs: JSON lines go in and out by pipes, and it ends with the one that started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from raylora.run.vllm import ENVIRONMENT, last_line

SCRIPT = Path(__file__).parent / "inside" / "write.py"
# One process, and files of this machine alone.
_ALONE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
# Of Ray's workers, for the packages of this environment: vLLM has its own.
_NOT_FOR_IT = ("PYTHONPATH", "PYTHONHOME", "OMP_NUM_THREADS")


class ChildDied(RuntimeError):
    """The process ended by itself."""


class Refused(ValueError):
    """vLLM said that it cannot do what was asked."""


class Child:
    """A running engine.

    Args:
        python: of the environment that has vLLM.
        how: the first line; see `inside/write.py`.
        log: a file that gets what vLLM says.
        threads: on a CPU; 0 leaves it to torch.

    Raises:
        Refused: vLLM cannot have the model.
        ChildDied: it ended before it was ready.

    Attributes:
        version: of vLLM.
    """

    def __init__(self, python: str, how: Mapping[str, Any], log: Path, threads: int = 0) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_IT}
        inherited |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [python, str(SCRIPT)],
                env={**ENVIRONMENT, **inherited, **_ALONE},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                encoding="utf-8",
                # Ctrl-C is for the one who started it, who ends it; and what vLLM starts in turn ends with its group.
                start_new_session=True,
            )
        try:
            self.version = str(self.ask(how)["ready"])
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._process.pid

    def ask(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a line.

        Raises:
            Refused: in vLLM's words.
            ChildDied: there is no answer.
        """
        into, out = self._process.stdin, self._process.stdout
        assert into is not None and out is not None
        line = ""
        with suppress(BrokenPipeError):
            into.write(json.dumps(told) + "\n")
            into.flush()
            line = out.readline()
        if not line.endswith("\n"):
            raise ChildDied(self._how_it_ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    def cpu_seconds(self) -> float:
        """Processor time of all its threads."""
        spent = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "it was killed, as happens where memory runs out"
        with suppress(OSError):
            return f"status {status}: {last_line(self._log.read_text(encoding='utf-8', errors='replace'))}"
        return f"status {status}"
