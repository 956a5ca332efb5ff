"""Disturbs searches until so many kills are recorded, and goes on where it was itself interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylora.bench.chaos import harms, invariants
from raylora.bench.chaos.drivers import Drivers
from raylora.bench.chaos.invariants import Answer
from raylora.bench.chaos.nodes import changed_environment
from raylora.bench.chaos.report import Kill, read_records, table
from raylora.bench.chaos.scenes import SCENES, Scene, make_assets, reference_of
from raylora.bench.chaos.search import Search
from raylora.errors import RunFailed, UserError
from raylora.progress import Progress

RECORDS = "kills.jsonl"
# Of one search.
_MOST_KILLS = 10
# Of all processes: sums come out the same everywhere, and a surrogate does not wait for what else the machine does.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "RAYLORA_SURROGATE_NICE": "0",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Nobody else reaches the cluster.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Memory that others on the machine take is no reason to end a worker here: all kills are those recorded.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def bench_chaos(
    *,
    kills: int = 100,
    seed: int = 0,
    folder: str | Path | None = None,
    kinds: Sequence[str] | None = None,
    samples: int = 1600,
    quiet: bool = False,
) -> dict[str, Any]:
    """Kills what searches consist of, as often as asked, and holds each search against what is promised.

    Args:
        kills: to be recorded in the folder, those of earlier calls included.
        seed: of what is done when.
        folder: of searches and records; a temporary one by default. Called again with it, the work goes on.
        kinds: of `harms.KINDS`; by default all that this machine lets be done.
        samples: of a trial.

    Returns:
        `kills`: how many. `lost`, `repeated`: trials that had finished before a kill. `broken`: what else did not
        hold, in words. `skipped`: kinds that cannot be done here, each with why. `kinds`: of each `kills`, `lost`,
        `repeated`, and `median_s` and `longest_s` until the search went on.

    Raises:
        UserError: an unknown kind, or none that can be done here.
    """
    progress = Progress(quiet=quiet)
    chosen, skipped = _possible(kinds)
    for kind, why in skipped.items():
        progress.say(f"skipped: {kind}, {why}")
    with contextlib.ExitStack() as stack:
        place = Path(folder or stack.enter_context(tempfile.TemporaryDirectory())).expanduser().absolute()
        place.mkdir(parents=True, exist_ok=True)
        # Short, for the paths of sockets are bounded; its own, where Ray notes which cluster is this machine's.
        sessions = stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True))
        stack.enter_context(changed_environment({**_environment(place), "RAY_TMPDIR": sessions}))
        make_assets(place)
        monkey = Monkey(place, seed, chosen, samples, progress)
        stack.callback(monkey.close)
        records = read_records(place / RECORDS)
        while len(records) < kills:
            records += monkey.search(records, kills)
    return {**table(records), "skipped": skipped}


def _environment(place: Path) -> dict[str, str]:
    # What searches run is what this process runs, whether or not it is installed.
    paths = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
    return {**_ENVIRONMENT, harms.MARK: str(place), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _possible(kinds: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """The kinds that can be done here, and why others cannot."""
    asked = list(harms.KINDS if kinds is None else kinds)
    for kind in asked:
        if kind not in harms.KINDS:
            allowed = list(harms.KINDS)
            raise UserError.at(
                "--kinds", f"{kind!r} is unknown; allowed: {', '.join(allowed)}", value=kind, allowed=allowed
            )
    reasons = {kind: harms.unavailable(kind) for kind in asked}
    skipped = {kind: why for kind, why in reasons.items() if why is not None}
    chosen = [kind for kind in asked if kind not in skipped]
    if not chosen:
        told = "; ".join(f"{kind} {why}" for kind, why in skipped.items())
        raise UserError.at("--kinds", f"none can be done here: {told}", value=asked)
    return chosen, skipped


def next_search(
    records: Sequence[Mapping[str, Any]], kinds: Sequence[str], kills: int, draw: random.Random
) -> tuple[Scene, list[str]]:
    """The next scene and what is done to it, so that in the end all kinds have been done about equally often."""
    done = Counter(record["kind"] for record in records)
    quota = {kind: kills // len(kinds) + (place < kills % len(kinds)) for place, kind in enumerate(kinds)}
    owed = {kind: max(0, quota[kind] - done[kind]) for kind in kinds}

    def takes(scene: Scene) -> list[str]:
        """Its own kinds, in turns, as long as they are owed."""
        left = {kind: owed[kind] for kind in scene.kinds if owed.get(kind)}
        found: list[str] = []
        while left and len(found) < _MOST_KILLS:
            for kind in list(left):
                found.append(kind)
                left[kind] -= 1
                if not left[kind]:
                    del left[kind]
        return found[: min(_MOST_KILLS, 2 * scene.asked)]

    def worth(scene: Scene) -> tuple[int, int]:
        return max(owed.get(kind, 0) for kind in scene.kinds[:1]), len(takes(scene))

    possible = [scene for scene in SCENES.values() if takes(scene)]
    scene = max(possible, key=worth)
    found = takes(scene)
    draw.shuffle(found)
    return scene, found


class Monkey:
    """Runs searches in a folder, one after the other."""

    def __init__(self, place: Path, seed: int, kinds: Sequence[str], samples: int, progress: Progress) -> None:
        self.place, self.seed, self.kinds, self.samples = place, seed, kinds, samples
        self.say = progress.say
        self._model = invariants.digest(place / "model")
        self._drivers: dict[bool, Drivers] = {}
        self._clock = harms.Clock(place / "clock")

    def search(self, records: Sequence[Kill], kills: int) -> list[Kill]:
        """One search; its kills are on disk when this returns them."""
        number = 1 + max((record["search"] for record in records), default=0)
        scene, kinds = next_search(records, self.kinds, kills, random.Random(f"{self.seed}/{number}/kinds"))
        kinds = kinds[: kills - len(records)]
        reference = self._reference(scene)
        search = self._make(scene, number, self.place / f"search-{number}", kinds)
        self._run_to_end(search, reference)
        if all(not kill["broken"] for kill in search.kills):
            shutil.rmtree(search.folder)
        with (self.place / RECORDS).open("a") as file:
            file.write("".join(json.dumps(kill) + "\n" for kill in search.kills))
        return search.kills

    def _run_to_end(self, search: Search, reference: Mapping[str, Any]) -> None:
        """Runs it, and enters with each of its kills what does not hold of its end."""
        told: list[str] = []
        try:
            found = self._run(search, clock=search.scene.name == "clock")
            told += invariants.differences(found, reference["answer"], search.scene.promised)
        except RuntimeError as error:
            if not search.kills:
                raise RunFailed(f"bench chaos: {error}", field="--folder", value=str(self.place)) from error
            told.append(str(error))
        if set(search.checksums()) - set(reference["checksums"]):
            told.append("the base model in a host's memory has changed")
        if invariants.digest(self.place / "model") != self._model:
            told.append("the base model's files have changed")
        for kill in search.kills:
            kill["broken"] += told
        for line in told:
            self.say(f"search {search.number} ({search.scene.name}): {line}")

    def _reference(self, scene: Scene) -> dict[str, Any]:
        """What the scene's search finds when nothing disturbs it; run once."""
        name = reference_of(scene)
        file = self.place / f"uninterrupted-{name}.json"
        if not file.is_file():
            self.say(f"uninterrupted search: {name}")
            search = self._make(scene, 0, self.place / "uninterrupted", [])
            try:
                answer = self._run(search, clock=False)
            except RuntimeError as error:
                raise RunFailed(f"bench chaos: {error}", field="--folder", value=str(self.place)) from error
            file.write_text(json.dumps({"answer": answer, "checksums": search.checksums()}))
            shutil.rmtree(search.folder)
        return json.loads(file.read_text())

    def _make(self, scene: Scene, number: int, folder: Path, kinds: Sequence[str]) -> Search:
        shutil.rmtree(folder, ignore_errors=True)  # of a call that was interrupted
        return Search(scene, number, self.seed, folder, self.place, kinds, self.samples, self.say)

    def _run(self, search: Search, clock: bool) -> Answer:
        own = self._clock if clock else None
        if clock not in self._drivers:
            self._drivers[clock] = Drivers(own.environment if own else {})
        return search.run(self._drivers[clock], own)

    def close(self) -> None:
        for drivers in self._drivers.values():
            drivers.close()
