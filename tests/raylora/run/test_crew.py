"""`resources.hosts: auto`: hosts come and go with the nodes of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from ray.exceptions import RayActorError

from clusters.errors import ClusterError
from raylora.run import crew as module
from raylora.run.crew import Crew, counted
from raylora.spec import Spec, from_dict
from trainables.host import HostPool
from trainables.protocols import TrainSettings, TrialSetup
from trainables.testing import ExactMatch


def auto(**resources: Any) -> Spec:
    return from_dict(
        {"model": "smollm2-135m", "task": {"path": "rows.jsonl"}, "resources": {"hosts": "auto", **resources}}
    )


class NotLoaded(RayActorError):
    """What Ray tells of a host whose model cannot be loaded."""

    actor_init_failed = True

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "a traceback\nValueError: no model here"


class Call:
    """A remote method that is done at once; `ray.get` calls what `remote` gives."""

    def __init__(self, does: Callable[..., Any]) -> None:
        self.remote = lambda *given: partial(does, *given)


class Host:
    """Stands in for the handle of a ModelHost: `broken` where it cannot load its model."""

    def __init__(self, node: str, broken: bool) -> None:
        self.node, self.broken = node, broken
        self.ready, self.adopt = Call(self._ready), Call(lambda setup: None)

    def _ready(self) -> dict[str, str]:
        if self.broken:
            raise NotLoaded
        return {"node": self.node}


class Nodes:
    """A cluster of names; what was started where and with how many threads, and what was ended."""

    def __init__(self) -> None:
        self.there: dict[str, int] = {}
        self.broken: set[str | None] = set()
        self.started: list[tuple[str | None, int]] = []
        self.ended: list[Any] = []

    def alive(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": True, "Resources": {"CPU": cpus}} for name, cpus in self.there.items()]

    def start(self, setup: TrialSetup, number: int, node: str | None) -> Any:
        self.started.append((node, setup.threads))
        return Host(node or next(iter(self.there)), node in self.broken)


@pytest.fixture
def nodes(monkeypatch) -> Nodes:
    import ray

    made = Nodes()
    monkeypatch.setattr(module, "alive", made.alive)
    monkeypatch.setattr(ray, "get", lambda call: call())
    monkeypatch.setattr(ray, "wait", lambda calls, timeout: (calls, []))
    monkeypatch.setattr(ray, "kill", made.ended.append)
    return made


def a_crew(nodes: Nodes, said: list[str], spec: Spec | None = None, **options: Any) -> Crew:
    setup = TrialSetup("model", ExactMatch(), TrainSettings(1), [], [], "folder")
    return Crew(spec or auto(cpus_per_host=2), nodes.start, setup=setup, say=said.append, **options)


class Pool:
    """A HostPool in this process, called as an actor is."""

    def __init__(self, pool: HostPool) -> None:
        self.put = Call(pool.put)


def look(crew: Crew) -> None:
    """Twice: what was started is ready when it is looked at again."""
    crew.look()
    crew.look()


def test_hosts_follow_the_nodes_and_trials_the_hosts(nodes) -> None:
    said: list[str] = []
    nodes.there = {"a": 4}
    crew = a_crew(nodes, said)
    crew.begin()
    assert crew.places() == 2 and nodes.started == [("a", 2), ("a", 2)]
    pool = HostPool(crew.hosts)
    crew.pool = Pool(pool)  # type: ignore[assignment]
    first = pool.assign("x")
    nodes.there["b"] = 3
    look(crew)
    assert crew.places() == 3
    assert nodes.started[2:] == [("b", 2)]
    del nodes.there["a"]
    look(crew)
    assert crew.places() == 1
    assert list(pool.hosts) == [2] and pool.assign("x") == crew.hosts[0] != first
    assert said == ["hosts: 3 instead of 2", "hosts: 1 instead of 3"]


def test_what_a_host_of_a_node_that_left_was_doing_is_not_shown_any_more(nodes, tmp_path) -> None:
    nodes.there = {"a": 2, "b": 2}
    crew = a_crew(nodes, [])
    crew.setup = replace(crew.setup, run_dir=str(tmp_path))
    crew.begin()
    (tmp_path / "live").mkdir()
    for name in ("host-0.json", "host-1.json", "host-1-2.json", "host-10.json"):
        (tmp_path / "live" / name).touch()
    del nodes.there["b"]
    look(crew)
    assert sorted(file.name for file in (tmp_path / "live").iterdir()) == ["host-0.json", "host-10.json"]


def test_without_a_size_a_host_has_all_cores_of_its_node(nodes) -> None:
    nodes.there = {"a": 8, "b": 2, "head": 0}
    crew = a_crew(nodes, [], auto())
    crew.begin()
    assert sorted(nodes.started) == [("a", 8), ("b", 2)]


def test_a_node_without_what_a_run_needs_gets_no_host_and_one_line(nodes) -> None:
    said: list[str] = []

    def check(node: Any) -> None:
        if node["NodeID"] == "b":
            raise ClusterError("storage_path = '/runs': not shared")

    nodes.there = {"a": 2}
    crew = a_crew(nodes, said, check=check)
    crew.begin()
    nodes.there["b"], nodes.there["c"], nodes.broken = 2, 4, {"c"}
    look(crew)
    assert len(said) == 2
    assert said[0] == "hosts: none on node b: storage_path = '/runs': not shared"
    assert said[1].startswith("hosts: none on node c: ") and said[1].endswith("no model here")
    assert crew.places() == 1 and [node for node, _ in nodes.started] == ["a", "c", "c"]
    assert len(nodes.ended) == 1


def test_a_model_that_no_node_can_load_ends_the_run(nodes) -> None:
    nodes.there, nodes.broken = {"a": 2, "b": 2}, {"a", "b"}
    with pytest.raises(RayActorError):
        a_crew(nodes, []).begin()
    nodes.there, nodes.broken = {"head": 0}, {None}
    with pytest.raises(RayActorError):
        a_crew(nodes, []).begin()


def test_a_cluster_without_room_is_asked_for_one_host_and_its_node_filled(nodes) -> None:
    nodes.there = {"a": 0}
    crew = a_crew(nodes, [])
    crew.begin()
    assert nodes.started == [(None, 2)] and crew.places() == 1
    nodes.there["a"] = 6  # Ray has put it there
    look(crew)
    assert nodes.started[1:] == [("a", 2), ("a", 2)]
    nodes.there = {"b": 2}
    look(crew)
    assert crew.places() == 1 and len(nodes.ended) == 1


def test_worker_groups_are_counted_and_not_started(nodes) -> None:
    said: list[str] = []
    nodes.there = {"a": 8}
    crew = Crew(auto(cpus_per_host=2, workers=2), None, say=said.append)
    crew.begin()
    assert crew.places() == 2
    nodes.there["b"] = 4
    crew.look()
    assert crew.places() == 3 and said == ["trials at a time: 3 instead of 2"]


def test_a_plan_reckons_with_the_hosts_that_there_is_room_for_now(nodes, monkeypatch) -> None:
    import ray

    nodes.there = {"a": 8, "b": 2}
    monkeypatch.setattr(ray, "nodes", nodes.alive)
    assert counted(auto(cpus_per_host=2)).resources.at_a_time == 5
    assert counted(auto()).resources.at_a_time == 2


def test_who_watches_is_told_until_the_search_is_over(nodes, monkeypatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.05)
    nodes.there = {"a": 2}
    crew = a_crew(nodes, [])
    crew.begin()
    with crew.watching(None):
        nodes.there["b"] = 2
        deadline = time.monotonic() + 60
        while crew.places() != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert crew.slot_seconds > 0
