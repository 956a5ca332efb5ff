"""The door: programs in, outcomes out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from raylora.errors import UserError
from raylora.tasks.sandbox import kinds, supervise, wasm
from raylora.tasks.sandbox.program import Limits, Outcome, Program
from raylora.tasks.sandbox.runtime import Runtime, runtime


class Sandbox:
    """Runs untrusted programs one by one or several at a time; nothing is reused from one to the next.

    Args:
        kind: `landlock`, `bubblewrap`, `wasm`, or `none` with `unsafe`; None takes the first that can be had.
        unsafe: run without walls where none can be had. The programs then run as you.
        limits: bounds on each program.
        workers: programs at a time; None is the number of processors, 8 at most.
        python: the interpreter to run programs in; None is this one. `wasm` brings its own.

    Raises:
        UserError: the walls asked for, or any at all, cannot be had here; one line with the remedy.
    """

    def __init__(
        self,
        kind: str | None = None,
        *,
        unsafe: bool = False,
        limits: Limits | None = None,
        workers: int | None = None,
        python: str | None = None,
    ) -> None:
        self.kind = kinds.choose(kind, unsafe=unsafe)
        self.limits = limits or Limits()
        self.workers = workers or min(8, os.cpu_count() or 1)
        self._runtime = _runtime(python)
        if self.kind == "wasm":
            wasm.compiled()

    def run(self, program: Program | str, limits: Limits | None = None) -> Outcome:
        """The outcome of one program; a text alone passes where it runs to its end."""
        program = Program(program) if isinstance(program, str) else program
        limits = limits or self.limits
        return supervise.run(program, kind=self.kind, runtime=self._runtime, limits=limits)

    def run_tests(self, programs: Sequence[Program]) -> list[Outcome]:
        """One outcome per program, in their order."""
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="sandbox")
        try:
            return list(pool.map(self.run, programs))
        finally:
            # After Ctrl-C what has not begun does not begin; what runs is ended by its own bounds.
            pool.shutdown(cancel_futures=True)


def _runtime(python: str | None) -> Runtime:
    try:
        return runtime(python)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UserError.at(
            "sandbox", f"the interpreter cannot be run ({error}); give another python", value=python
        ) from error


def run_tests(programs: Sequence[Program]) -> list[Outcome]:
    """One outcome per program in the default sandbox of this machine."""
    return Sandbox().run_tests(programs)
