"""One search that is disturbed some times, goes on each time as a user would have it go on, and is checked."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raylora.bench.chaos import harms, invariants
from raylora.bench.chaos.drivers import CHECKSUMS, Driver, Drivers
from raylora.bench.chaos.invariants import Answer
from raylora.bench.chaos.nodes import Nodes, redis
from raylora.bench.chaos.report import Kill
from raylora.bench.chaos.scenes import Scene, write_spec
from raylora.run.summary import read_summary
from trainables.journal import Journal

# Without a line in the journal for so long, a search hangs.
HANGS_S = 900.0
# Times in a row that a resumed search may stop without having come any further.
_TRIES = 5
_POLL_S = 0.05
# Longest times, drawn from zero: until a kill, once its moment has come; and that trouble lasts.
_DELAY_S, _LASTS_S = 2.5, 4.0
# Share of kills of the driver that do not wait until a trial is under way.
_EARLY = 0.3


@dataclass
class Search:
    """A search in progress.

    Args:
        number: of the search; its moments are drawn with it and the seed.
        folder: of its own. assets: of `scenes.make_assets`.
        kinds: what is done to it, in that order, while it lasts.
        samples: of a trial.
    """

    scene: Scene
    number: int
    seed: int
    folder: Path
    assets: Path
    kinds: Sequence[str]
    samples: int
    say: Callable[[str], None]
    kills: list[Kill] = field(default_factory=list)

    def run(self, drivers: Drivers, clock: harms.Clock | None = None) -> Answer:
        """From its first trial to its end; the kills are in `kills`. Returns what it found.

        Args:
            clock: of all of its processes, where it is to jump; the drivers' too.
        """
        self._draw = random.Random(f"{self.seed}/{self.number}")
        self._drivers, self._clock = drivers, clock
        self.storage, self._outputs = self.folder / "storage", 0
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._place() as (nodes, address):
            self._nodes, self._environment = nodes, {"RAY_ADDRESS": address}
            self._environment[CHECKSUMS] = str(self.folder / "checksums.json")
            spec = self.folder / "spec.yaml"
            write_spec(self.scene, self.assets, self.storage, spec, self.samples)
            self.driver = self._start("tune", spec)
            seen: list[set[str]] = []
            for kind in self.kinds:
                before = self._disturb(kind)
                if before is None:
                    break
                seen.append(before)
            self._until_over()
            self._judge(seen)
            return invariants.answer_of(self.storage / "run")

    @contextlib.contextmanager
    def _place(self) -> Iterator[tuple[Nodes, str]]:
        """The disk and the Ray cluster, for the duration."""
        with contextlib.ExitStack() as stack:
            if "disk" in self.kinds:
                stack.enter_context(harms.small_disk(self.storage))
            self.storage.mkdir(exist_ok=True)
            tables = stack.enter_context(redis(self.folder / "redis.log")) if "gcs" in self.kinds else None
            nodes = Nodes(self.scene.nodes, tables, self._clock.environment if self._clock else {})
            stack.callback(nodes.close)
            stack.callback(lambda: self.driver.kill())
            yield nodes, nodes.address

    # -- the driver ----------------------------------------------------------------------------------------------------

    def _start(self, command: str, what: Path) -> Driver:
        self._outputs += 1
        output = self.folder / f"output-{self._outputs}.txt"
        return self._drivers.start([command, what, "--quiet"], output, self._environment)

    def _resume(self) -> None:
        self.driver = self._start("resume", self._run)

    @property
    def _run(self) -> Path:
        return self.storage / "run"

    @property
    def _mark(self) -> str:
        return str(self.assets)

    def _rows(self) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError):
            return Journal(self._run).rows()
        return []

    def _over(self) -> bool:
        """Whether its driver has come to the end of the search."""
        return not self.driver.alive and self.driver.status == 0 and read_summary(self._run) is not None

    def _last_words(self) -> str:
        """The line that the last driver ended with, or a note that it printed more than a line."""
        text = self.driver.output.read_text(errors="replace").strip()
        last = text.splitlines()[-1] if text else ""
        return f"a traceback, that ends {last}" if "Traceback" in text else last

    def _until(self, condition: Callable[[], bool], resumed: Callable[[str], None]) -> None:
        """Returns once the condition holds; a driver that stops before is resumed, and `resumed` told its last words.

        Raises:
            RuntimeError: it hangs, or stops again and again.
        """
        count, since, stops = len(self._rows()), time.monotonic(), 0
        while not condition():
            if len(rows := self._rows()) != count:
                count, since, stops = len(rows), time.monotonic(), 0
            if not self.driver.alive:
                if condition():
                    return
                stops += 1
                words = self._last_words()
                if stops > _TRIES:
                    raise RuntimeError(f"search {self.number} stopped {stops} times in a row: {words}")
                resumed(words)
                self._resume()
            if time.monotonic() - since > HANGS_S:
                raise RuntimeError(f"search {self.number} has had nothing to tell for {HANGS_S:.0f} s")
            time.sleep(_POLL_S)

    def _until_over(self) -> None:
        self._until(self._over, self._stopped)

    def _stopped(self, words: str) -> None:
        """A driver stopped by itself some time after the last kill: it is told with that one."""
        if not self.kills:
            raise RuntimeError(f"search {self.number} stopped undisturbed: {words}")
        self._note(self.kills[-1], words)

    def _note(self, kill: Kill, words: str) -> None:
        kill["resumed"] += 1
        kill["told"].append(words)
        if words.startswith("a traceback"):
            kill["broken"].append(f"the driver ended with {words}")

    # -- a kill --------------------------------------------------------------------------------------------------------

    def _disturb(self, kind: str) -> set[str] | None:
        """Do one thing and wait until the search goes on. Returns the trials that had finished; None: it was over."""
        if not self._moment(kind):
            return None
        rows = self._rows()
        before = invariants.finished(rows)
        kill = Kill(
            kind=kind, scene=self.scene.name, search=self.number, at=_moment_of(rows, self.scene.asked),
            finished=len(before), lost=0, repeated=0, resumed=0, seconds=0.0, told=[], broken=[],
        )  # fmt: skip
        self.kills.append(kill)
        self.say(f"search {self.number} ({self.scene.name}): {kind} {kill['at']}")
        steps = self._strike(kind, kill)
        count, struck = len(self._rows()), time.monotonic()
        if kind == "driver":
            kill["resumed"] += 1
            self._resume()
        self._until(lambda: len(self._rows()) > count or self._over(), lambda words: self._note(kill, words))
        kill["seconds"] = round(time.monotonic() - struck, 2)
        kill["broken"] += invariants.not_gone_on_from(self._rows()[count:], steps)
        self.say(f"search {self.number} ({self.scene.name}): goes on after {kill['seconds']:.1f} s")
        return before

    def _moment(self, kind: str) -> bool:
        """Wait for a random moment at which there is something to disturb. False: the search was over before."""
        count = len(self._rows())
        early = kind == "driver" and self._draw.random() < _EARLY

        def come() -> bool:
            if self._over():
                return True
            if not (self._run / "spec.yaml").is_file():
                return False
            if not early and len(self._rows()) <= count:
                return False
            title = harms.PROCESSES.get(kind)
            return title is None or bool(harms.processes(self._mark, title))

        self._until(come, self._stopped)
        time.sleep(self._draw.uniform(0, _DELAY_S))
        return not self._over()

    def _strike(self, kind: str, kill: Kill) -> dict[str, int]:
        """Does it. Returns the steps of the checkpoints that the search goes on from, where that is known."""
        lasts = self._draw.uniform(0, _LASTS_S)
        if kind == "driver":
            self.driver.kill()
            return self._left_behind(kill)
        if kind in harms.PROCESSES:
            harms.kill_one(self._mark, kind, self._draw)
        elif kind == "raylet":
            self._nodes.kill_raylet(lasts)
        elif kind == "gcs":
            self._nodes.kill_gcs(lasts)
        elif kind == "clock":
            assert self._clock is not None
            self._clock.jump(self._draw)
        else:
            trouble = harms.full(self.storage) if kind == "disk" else harms.read_only(self._run)
            with trouble:
                time.sleep(lasts)
        return {}

    def _left_behind(self, kill: Kill) -> dict[str, int]:
        """The checkpoints that a killed driver's hosts left, once those have ended."""
        deadline = time.monotonic() + HANGS_S
        while any(harms.processes(self._mark, harms.PROCESSES[kind]) for kind in ("host", "worker")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"search {self.number}: hosts outlive their driver")
            time.sleep(_POLL_S)
        steps, torn = invariants.checkpoints(self._run)
        kill["broken"] += torn
        return steps

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def _judge(self, seen: Sequence[set[str]]) -> None:
        """Enter what was lost and repeated with each kill, and what else does not hold."""
        rows = self._rows()
        over, again = invariants.finished(rows), invariants.trained_again(rows)
        told = invariants.broken(self._run, self.scene.asked)
        for kill, before in zip(self.kills, seen, strict=True):
            kill["lost"], kill["repeated"] = len(before - over), len(before & again)
            kill["broken"] += told

    def checksums(self) -> list[str]:
        """Fingerprints of the hosts' models when the search had ended."""
        file = self.folder / "checksums.json"
        return json.loads(file.read_text()) if file.is_file() else []


def _moment_of(rows: Sequence[Mapping[str, Any]], asked: int) -> str:
    done = len(invariants.finished(rows))
    if any(row["event"] == "final" for row in rows) or done >= asked:
        return "in the final stage"
    begun = {row["key"] for row in rows if row["event"] == "start"} - invariants.finished(rows)
    return f"after {done} of {asked} trials, {len(begun)} under way"
