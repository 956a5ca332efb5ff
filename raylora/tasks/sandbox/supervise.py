"""One program from start to verdict: two confined processes, watched from outside, and ended whatever they do."""

from __future__ import annotations

import json
import marshal
import math
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import cache
from importlib.resources import files
from typing import Any

from raylora.errors import UserError
from raylora.tasks.sandbox import kinds
from raylora.tasks.sandbox.program import Limits, Outcome, Program, imported
from raylora.tasks.sandbox.runtime import Runtime
from raylora.tasks.sandbox.scratch import holds_more_than, scratch_folder

_TAIL_BYTES = 4096
_LOOK_S = 0.1
_GRACE_S = 5.0


def run(program: Program, *, kind: str, runtime: Runtime, limits: Limits) -> Outcome:
    """Run `program` against its tests and leave nothing behind."""
    started = time.monotonic()
    with ExitStack() as stack:
        pair = _Pair(stack, program, kind=kind, runtime=runtime, limits=limits)
        found, detail = pair.watch(started + limits.deadline_s)
    stdout = bytes(pair.printed[-_TAIL_BYTES:]).decode(errors="replace")
    return Outcome(found == "passed", found, detail, stdout, time.monotonic() - started)


class _Pair:
    """The program's process and the tests' process, joined by two pipes; the verdict comes by a third.

    The third is open in the tests' process only. The program's process has nothing to write on but its answers.
    """

    def __init__(self, stack: ExitStack, program: Program, *, kind: str, runtime: Runtime, limits: Limits) -> None:
        self._limits = limits
        self.printed = bytearray()
        self._verdict = bytearray()
        self._open: set[int] = set()
        stack.callback(self._close)
        names, modules = program.wanted()
        asked, ask = self._pipe()
        heard, answer = self._pipe()
        self._verdict_fd, verdict = self._pipe()
        tests = {
            "prelude": program.prelude,
            "tests": program.tests,
            "entry_point": program.entry_point,
            "names": names,
            "modules": modules,
        }
        start = _Start(stack, kind, runtime, limits)
        self._program = start(
            "candidate", {"code": program.code, "names": names}, [asked, answer], imported(program.code)
        )
        used = imported(program.tests) | imported(program.prelude)
        self._tests = start("judge", tests, [heard, ask, verdict], used)
        self._scratch, self._inner = start.scratch, start.inner
        for fd in (asked, ask, heard, answer, verdict):
            os.close(fd)
            self._open.discard(fd)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def _close(self) -> None:
        for fd in self._open:
            os.close(fd)

    def watch(self, deadline: float) -> tuple[str, str]:
        """Wait for the verdict, the deadline or a bound passed; then end both and say which it was."""
        ended = self._wait(deadline)
        for process in (self._program, self._tests):
            end(process, self._inner.get(process))
        for process in (self._program, self._tests):
            self._drain(process)
        return self._conclude(ended)

    def _wait(self, deadline: float) -> tuple[str, str] | None:
        with selectors.DefaultSelector() as selector:
            for process in (self._program, self._tests):
                assert process.stdout is not None
                selector.register(process.stdout.fileno(), selectors.EVENT_READ, self.printed)
            selector.register(self._verdict_fd, selectors.EVENT_READ, self._verdict)
            looked = time.monotonic()
            while True:
                now = time.monotonic()
                if now >= deadline:
                    return "timeout", f"{self._limits.deadline_s:g} s on the clock"
                if now - looked >= _LOOK_S:
                    looked = now
                    if self._full():
                        return "disk", f"more than {self._limits.disk_mb} MiB or {self._limits.files} files"
                for key, _ in selector.select(min(_LOOK_S, deadline - now)):
                    part = os.read(key.fd, 65536)
                    if not part:
                        selector.unregister(key.fd)
                        if key.fd == self._verdict_fd:
                            return None
                    key.data.extend(part)
                if len(self.printed) > self._limits.output_kb * 1024:
                    return "output", f"more than {self._limits.output_kb} KiB printed"
                if len(self._verdict) > 65536:
                    return "error", "a verdict that is none"

    def _full(self) -> bool:
        size = self._limits.disk_mb * 2**20
        return any(holds_more_than(path, size=size, files=self._limits.files) for path in self._scratch)

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        try:
            self.printed.extend(process.stdout.read(65536) or b"")
        except OSError:
            return

    def _conclude(self, ended: tuple[str, str] | None) -> tuple[str, str]:
        if ended is not None:
            return ended
        statuses = (self._program.returncode, self._tests.returncode)
        if any(status in (-signal.SIGXCPU, 128 + signal.SIGXCPU) for status in statuses):
            return "timeout", f"{self._limits.timeout_s:g} s of processor time"
        verdict = _verdict(self._verdict)
        if verdict is None:
            said = self.printed[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
            return "error", f"the tests ended without a verdict: {said[-1] if said else f'status {statuses[1]}'}"
        return verdict


def _verdict(frame: bytearray) -> tuple[str, str] | None:
    if len(frame) < 4 or len(frame) != 4 + struct.unpack(">I", frame[:4])[0]:
        return None
    kind, detail = json.loads(frame[4:])
    return str(kind), str(detail)


class _Start:
    """Starts one role in a process group, a session and a scratch folder of its own."""

    def __init__(self, stack: ExitStack, kind: str, runtime: Runtime, limits: Limits) -> None:
        self.scratch: list[str] = []
        self.inner: dict[subprocess.Popen[bytes], int] = {}
        self._stack, self._kind, self._runtime, self._limits = stack, kind, runtime, limits

    def __call__(
        self, role: str, payload: dict[str, Any], fds: list[int], imports: set[str]
    ) -> subprocess.Popen[bytes]:
        runtime = self._runtime.showing(imports if self._kind != "wasm" else ())
        scratch = self._stack.enter_context(scratch_folder())
        self.scratch.append(scratch)
        # Compiling is a third of what a short program costs; only this very interpreter takes what this one compiled.
        compiled = runtime.own and self._kind != "wasm"
        policy = kinds.policy(self._kind, runtime, scratch) | {"limits": _limits(self._limits)}
        orders = {
            "role": role,
            "payload": payload,
            "fds": fds,
            "modules": _modules(role, self._kind, compiled=compiled),
            "compiled": compiled,
            **({"boot": _source("boot"), "confine": _source("confine")} if self._kind == "wasm" else {}),
            "policy": policy,
            "packages": dict(runtime.packages),
            "recursion": 1100,
        }
        orders_fd = os.memfd_create("orders")
        told, tell = os.pipe()
        self._stack.callback(os.close, told)
        try:
            with open(orders_fd, "wb", closefd=False) as file:
                file.write(json.dumps(orders).encode())
            os.lseek(orders_fd, 0, os.SEEK_SET)
            command = kinds.command(self._kind, runtime, scratch, _boot(self._kind), orders_fd, tell)
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=scratch,
                env=_environment(self._kind, scratch),
                pass_fds=[*fds, orders_fd, *([tell] if self._kind == "bubblewrap" else [])],
                start_new_session=True,
            )
        except OSError as error:
            raise UserError.at(
                "sandbox",
                f"{self._runtime.python} does not start ({error}); give another python",
                value=self._runtime.python,
            ) from error
        finally:
            os.close(orders_fd)
            os.close(tell)
        if self._kind == "bubblewrap":
            self.inner[process] = told
        self._stack.callback(self._forget, process)
        return process

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        end(process, self.inner.get(process))
        assert process.stdout is not None
        process.stdout.close()


def end(process: subprocess.Popen[bytes], inner: int | None = None) -> None:
    """Kill the whole group and collect the process. Does nothing to one that is collected already.

    Args:
        process: the leader of the group.
        inner: descriptor on which bubblewrap tells the first process of its namespace. Killing that one ends all of
            them before bubblewrap itself ends; killing bubblewrap would leave them a moment in which to write.
    """
    if process.returncode is None and process.poll() is None:
        if inner is not None:
            with suppress(ValueError, KeyError, OSError):
                os.kill(json.loads(os.read(inner, 65536))["child-pid"], signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _limits(limits: Limits) -> dict[str, tuple[int, int]]:
    seconds = max(1, math.ceil(limits.timeout_s))
    memory = limits.memory_mb * 2**20
    size = limits.disk_mb * 2**18
    return {
        "RLIMIT_CPU": (seconds, seconds + 1),
        "RLIMIT_AS": (memory, memory),
        "RLIMIT_FSIZE": (size, size),
        "RLIMIT_NOFILE": (64, 64),
        "RLIMIT_CORE": (0, 0),
    }


def _environment(kind: str, scratch: str) -> dict[str, str]:
    if kind == "wasm":
        # The host of the guest is raylora's own; the guest sees none of this.
        return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # Threads of numpy's library would each take their share of the memory.
    single = {"OPENBLAS_NUM_THREADS": "1"}
    return {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "HOME": scratch, "TMPDIR": scratch, **single}


def _boot(kind: str) -> str:
    return _source("guest", "raylora.tasks.sandbox") if kind == "wasm" else _source("boot")


@cache
def _source(name: str, package: str = "raylora.tasks.sandbox.inside") -> str:
    return (files(package) / f"{name}.py").read_text()


@cache
def _modules(role: str, kind: str, *, compiled: bool) -> dict[str, str]:
    """What a role needs: sources, or their code in hexadecimals."""
    sources = {name: _source(name) for name in [*(["confine"] if kind != "wasm" else []), "wire", role]}
    if not compiled:
        return sources
    return {name: marshal.dumps(compile(source, name, "exec")).hex() for name, source in sources.items()}
