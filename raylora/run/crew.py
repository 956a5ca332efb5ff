"""The hosts of a run that leaves their number to the cluster (`resources.hosts: auto`): they come and go with nodes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusters.errors import ClusterError
from clusters.places import Room, rooms, trials_at_a_time
from raylora.spec import Spec
from trainables.live import FOLDER as LIVE

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from trainables.protocols import TrialSetup

# Seconds between two looks at the cluster.
EVERY_S = 2.0
# Once a host is ready, how long a run waits for others before it begins without them.
OTHERS_S = 60.0
# More trials at a time than any cluster has room for: what bounds them is asked of the crew.
MOST = 4096

Start = Callable[["TrialSetup", int, "str | None"], "ActorHandle"]


def room_of(spec: Spec, nodes: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Room]:
    """What each node of the connected cluster has room for."""
    if nodes is None:
        import ray

        nodes = ray.nodes()
    resources = spec.resources
    return rooms(
        nodes,
        cpus_per_host=resources.cpus_per_host,
        gpus_per_host=resources.gpus_per_host,
        accelerator_type=resources.accelerator_type,
    )


def counted(spec: Spec) -> Spec:
    """The spec with as many hosts as the connected cluster has room for now, where it leaves their number open."""
    if spec.resources.hosts != "auto":
        return spec
    return spec.counted(trials_at_a_time(room_of(spec), spec.resources.workers))


@dataclass
class _Host:
    """One that was started.

    `node`: where it is; None while Ray has not chosen. `placed`: whether Ray chose. `loading`: until it is ready.
    """

    actor: ActorHandle
    setup: TrialSetup | None
    node: str | None
    placed: bool
    loading: ObjectRef[Any] | None


class Crew:
    """Starts a host wherever there is room for one, and forgets those whose nodes have left.

    Where trials are worker groups, nothing is started: their number follows the cluster.

    Args:
        spec: with `resources.hosts: auto`.
        start: makes a host from its setup, its number and the node that it is for (None: any).
        setup: of trials.
        check: raises ClusterError where a node that has joined lacks what the run needs; given as `ray.nodes()` has it.
        say: takes what happens, a line each.
    """

    def __init__(
        self,
        spec: Spec,
        start: Start | None,
        *,
        setup: TrialSetup | None = None,
        check: Callable[[Mapping[str, Any]], None] = lambda node: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.spec, self.start, self.check, self.say = spec, start, check, say
        # What hosts run trials under now: those that were started under another setup are put under it as they join.
        self.setup = setup
        self.pool: ActorHandle | None = None
        # Those that are ready. The same list from the first to the last: it is the run's.
        self.hosts: list[ActorHandle] = []
        self.slot_seconds = 0.0
        self._crew: dict[int, _Host] = {}
        self._started = 0
        # None among them: wherever Ray would place one.
        self._refused: set[str | None] = set()
        self._known: set[str] = set()
        self._groups = 0
        self._looked = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        # Tune keeps the searcher, which asks this, in its snapshots: nothing of a running process belongs into them.
        return {}

    def places(self) -> int:
        """Trials at a time that there are hosts for, or room for as worker groups; 0 while the last node is gone."""
        return self._groups if self.start is None else len(self.hosts)

    def begin(self) -> None:
        """Start hosts, and return once one is ready, and others that do not take much longer.

        Raises:
            RayError: the model cannot be loaded anywhere.
            ClusterError: no node has what the run needs.
        """
        self._known = {str(node["NodeID"]) for node in alive()}
        deadline: float | None = None
        while True:
            error = self.look()
            if self.start is None:
                return
            if self.hosts and deadline is None:
                deadline = time.monotonic() + OTHERS_S
            loading = any(host.loading is not None for host in self._crew.values())
            if self.hosts and (not loading or (deadline is not None and time.monotonic() > deadline)):
                return
            if error is not None and not self._crew:
                raise error  # the last of them failed
            time.sleep(0.1)

    @contextlib.contextmanager
    def watching(self, pool: ActorHandle | None) -> Iterator[None]:
        """Look at the cluster every few seconds for the duration, and have `pool` give out the hosts that there are."""
        self.pool, over = pool, threading.Event()
        self._put()
        self.slot_seconds, self._looked = 0.0, time.monotonic()
        watch = threading.Thread(target=self._watch, args=(over,), daemon=True, name="crew")
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join(timeout=10)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(EVERY_S):
            # A head that is away for a while, or a cluster that ends: what is there is looked at again.
            with contextlib.suppress(Exception):
                self.look()

    def look(self) -> Exception | None:
        """See who has come and who has gone, once. Returns why the last of those that failed did."""
        now = time.monotonic()
        self.slot_seconds += self.places() * (now - self._looked)
        self._looked = now
        nodes = {str(node["NodeID"]): node for node in alive()}
        there = room_of(self.spec, list(nodes.values()))
        if self.start is None:
            self._count(trials_at_a_time(there, self.spec.resources.workers))
            return None
        before = len(self.hosts)
        self._forget_gone(nodes)
        error = self._take_ready(nodes)
        self._start_missing(nodes, there)
        self._put()
        if self.pool is not None and len(self.hosts) != before:
            self.say(f"hosts: {len(self.hosts)} instead of {before}")
        return error

    def _forget_gone(self, nodes: Mapping[str, Any]) -> None:
        import ray

        for number, host in list(self._crew.items()):
            if host.node is None or host.node in nodes:
                continue
            del self._crew[number]
            if host.actor in self.hosts:
                self.hosts.remove(host.actor)
            if self.setup is not None:  # what it was doing, it does no more
                for file in (Path(self.setup.run_dir) / LIVE).glob(f"host-{number}[.-]*"):
                    file.unlink(missing_ok=True)
            if host.placed:  # which Ray would start again elsewhere
                ray.kill(host.actor)

    def _take_ready(self, nodes: Mapping[str, Any]) -> Exception | None:
        import ray
        from ray.exceptions import ActorUnavailableError, RayError

        failed: Exception | None = None
        for number, host in list(self._crew.items()):
            # One that failed may have taken others of its node with it.
            if number not in self._crew or host.loading is None or not ray.wait([host.loading], timeout=0)[0]:
                continue
            try:
                node = ray.get(host.loading)["node"]
                if host.setup is not self.setup:
                    ray.get(host.actor.adopt.remote(self.setup))
            except ActorUnavailableError:  # it was ended as it loaded: Ray starts it again, some times
                host.loading = host.actor.ready.remote()
                continue
            except RayError as error:
                failed = error
                del self._crew[number]
                if host.node is None or host.node in nodes:  # else it has just left
                    self._refuse(host.node, nodes, error)
                continue
            host.loading, host.setup, host.node = None, self.setup, node
            self.hosts.append(host.actor)
        return failed

    def _start_missing(self, nodes: Mapping[str, Any], there: Mapping[str, Room]) -> None:
        have = Counter(host.node for host in self._crew.values())
        for name, room in there.items():
            missing = room.hosts - have[name]
            # One that Ray is still to place may come here.
            if name in self._refused or missing <= 0 or have[None]:
                continue
            if name not in self._known:
                try:
                    self.check(nodes[name])
                except ClusterError as error:
                    self._refuse(name, nodes, error)
                    continue
                self._known.add(name)
            for _ in range(missing):
                self._begin(name, room.threads)
        # A cluster that has nodes when they are asked for gets something to do.
        if not there and not self._crew and None not in self._refused:
            self._begin(None, self.spec.resources.cpus_per_host or 1)

    def _begin(self, node: str | None, threads: int) -> None:
        assert self.start is not None and self.setup is not None
        actor = self.start(replace(self.setup, threads=threads), self._started, node)
        self._crew[self._started] = _Host(actor, self.setup, node, node is None, actor.ready.remote())
        self._started += 1

    def _refuse(self, name: str | None, nodes: Mapping[str, Any], error: Exception) -> None:
        """Nothing is started there any more."""
        import ray
        from ray.exceptions import RayActorError

        from trainables.hosted import last_line

        self._refused.add(name)
        why = last_line(error) if isinstance(error, RayActorError) else " ".join(str(error).split())
        where = "" if name is None else f" on node {nodes[name].get('NodeManagerAddress') or name}"
        self.say(f"hosts: none{where}: {why}")
        for number, host in list(self._crew.items()):
            if host.node == name and host.loading is not None:
                del self._crew[number]
                ray.kill(host.actor)

    def _put(self) -> None:
        """Tell the pool of all: one that was restarted knows those alone that there were at first."""
        if self.pool is not None:
            import ray

            ready = {number: host.actor for number, host in self._crew.items() if host.loading is None}
            ray.get(self.pool.put.remote(ready))

    def _count(self, groups: int) -> None:
        if self._groups and groups != self._groups:
            self.say(f"trials at a time: {groups} instead of {self._groups}")
        self._groups = groups

    def close(self) -> None:
        """End those that are still loading; the others are the run's."""
        import ray

        for host in self._crew.values():
            if host.loading is not None:
                ray.kill(host.actor)


def alive() -> list[dict[str, Any]]:
    """The nodes of the connected cluster, as `ray.nodes()` tells of them."""
    import ray

    return [node for node in ray.nodes() if node.get("Alive")]
