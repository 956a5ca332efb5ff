"""Mesh adaptive direct search: NOMAD, on the lattice of the knobs' positions."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Unpack

from .base import Common, SpaceSearcher
from .errors import OptionError

_WORKER = Path(__file__).parent / "surrogate" / "nomad_worker.py"
# Runs that may end, one after the other, without a new point before a random one is tried instead.
_RUNS_PER_SUGGESTION = 3


class NomadSearch(SpaceSearcher):
    """NOMAD 4's MADS with its default searches, every knob an integer: the position of its value.

    NOMAD waits for one value at a time. While it waits, further slots get an untried neighbour of the best
    configuration (a random one before there is a best); NOMAD hears of those results when it asks for those points. A
    point that was tried before is answered from the observations and never proposed, a trial without a value is a
    failed evaluation. When a run converges, the next one starts from a random untried configuration. Categorical knobs
    are integers too, as in Tribes et al.; inactive conditional knobs are not looked at.

    NOMAD runs in a process beside this one, see `surrogate/nomad_worker.py`. That process is no part of the state: a
    restored searcher starts the current run over and answers from the observations up to where it was.

    Arguments as for `SpaceSearcher`, and:

    Args:
        evaluations: that a run may spend, points that it has seen before included.

    Raises:
        ValueError: a value outside its domain; the message names it.
        RuntimeError: in `suggest`, when NOMAD cannot be started.

    References: Audet et al., "Algorithm 1027: NOMAD version 4", ACM TOMS 2022; Tribes et al., "Hyperparameter
    optimization for large language model instruction-tuning", 2024 (the paper's baseline).
    """

    name: ClassVar[str] = "nomad"
    summary: ClassVar[str] = "mesh adaptive direct search on the lattice of knob positions (NOMAD)"
    _transient: ClassVar[tuple[str, ...]] = ("_process", "_asked")

    def __init__(self, *, evaluations: int = 400, **common: Unpack[Common]) -> None:
        if evaluations < 1:
            raise OptionError("evaluations", f"{evaluations!r} is too small; use 1 or more", value=evaluations)
        self.evaluations = evaluations
        self._runs = 0
        self._start: int | None = None  # of the current run
        self._process: subprocess.Popen[str] | None = None
        self._asked: int | None = None  # the point that NOMAD waits for
        super().__init__(**common)

    def close(self) -> None:
        """Ends NOMAD's process; the next suggestion starts one again."""
        process, self._process, self._asked = self.__dict__.get("_process"), None, None
        if process is not None:
            _end(process)

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.close()
        super().__setstate__(state)

    def _propose(self, trial_id: str) -> int | None:
        for _ in range(_RUNS_PER_SUGGESTION if self._lattice() else 0):
            index = self._next_point()
            if index is not None:
                return self._instead() if index in self._seen else index
            self.close()
            self._start = None
        return self._instead()

    def _lattice(self) -> list[int]:
        """The places of the knobs that NOMAD moves."""
        return [place for place, knob in enumerate(self._space().knobs) if len(knob) > 1]

    def _next_point(self) -> int | None:
        """The first point of the run whose value is not known, running ones included; None when the run has ended."""
        if self._process is None:
            self._begin()
            self._asked = self._read()
        while self._asked is not None:
            running = self._asked in self._pending.values()
            if running or self._asked not in self._seen:
                return self._asked
            observation = self._observations.get(self._asked)
            value = None if observation is None else observation.value
            # One that is neither running nor finished was lost: a failed evaluation.
            self._write(None if value is None else value if self._mode == "min" else -value)
            self._asked = self._read()
        return None

    def _instead(self) -> int:
        """An untried configuration, near the best where possible."""
        known = [(o.value, o.index) for o in self._observations.values() if o.value is not None]
        if known:
            best = (max(known) if self._mode == "max" else min(known))[1]
            near = [i for i in self._space().neighbours(best) if i not in self._seen]
            if near:
                return near[int(self.rng.integers(len(near)))]
        return self._space().sample(self.rng, 1, exclude=self._seen)[0]

    # -- NOMAD's process -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Starts a run: the current one over, or a new one from the best recorded (first) or an untried point."""
        if self._start is None:
            known = [(o.value, o.index) for o in self._observations.values() if o.value is not None]
            if self._runs == 0 and known:
                self._start = (max(known) if self._mode == "max" else min(known))[1]
            else:
                self._start = self._space().sample(self.rng, 1, exclude=self._seen)[0]
            self._runs += 1
        space, lattice = self._space(), self._lattice()
        positions = space.positions(self._start)
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # NOMAD would start a thread per core.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        weakref.finalize(self, _end, self._process)
        # In a small space a run circles around the best once it knows everything: no longer than it takes to see that.
        evaluations = min(self.evaluations, 20 + 4 * len(space))
        task = {
            "start": [positions[place] for place in lattice],
            "upper": [len(space.knobs[place]) - 1 for place in lattice],
            "seed": (self.seed * 1009 + self._runs) % 2**31,
            "evaluations": evaluations,
        }
        self._write(task)
        assert self._process.stdout is not None and self._process.stderr is not None
        if json.loads(self._process.stdout.readline() or "null") != "ready":
            said = self._process.stderr.read().strip().splitlines()
            self.close()
            raise RuntimeError(f"nomad: cannot start NOMAD ({said[-1] if said else 'no message'}); install PyNomadBBO")

    def _write(self, message: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # It has ended; what is read next says so.
            pass

    def _read(self) -> int | None:
        """The point that NOMAD asks for next, None when the run has ended (also by a crash)."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            return None
        digits = [0] * len(self._space().knobs)
        for place, position in zip(self._lattice(), json.loads(line), strict=True):
            digits[place] = position
        return self._space().index(digits)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
