"""Nodes have room for as many hosts as their CPUs and GPUs allow."""

from __future__ import annotations

from typing import Any

from clusters.places import Room, beside, rooms, trials_at_a_time


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": resources}


def test_without_a_size_a_host_has_a_node_to_itself() -> None:
    nodes = [node("head", CPU=0), node("a", CPU=8), node("b", CPU=2, GPU=4), node("gone", False, CPU=8)]
    assert rooms(nodes) == {"a": Room(1, 8), "b": Room(1, 2)}


def test_cpus_are_divided_and_what_is_left_over_is_left() -> None:
    assert rooms([node("a", CPU=8), node("b", CPU=2)], cpus_per_host=3) == {"a": Room(2, 3)}


def test_gpus_are_divided_in_whole_ones_and_shares_of_one() -> None:
    nodes = [node("a", CPU=16, GPU=4), node("cpus", CPU=64)]
    assert rooms(nodes, gpus_per_host=1) == {"a": Room(4, 4)}
    assert rooms(nodes, gpus_per_host=3) == {"a": Room(1, 16)}
    assert rooms(nodes, gpus_per_host=0.4) == {"a": Room(8, 2)}
    assert rooms(nodes, gpus_per_host=1, cpus_per_host=8) == {"a": Room(2, 8)}


def test_other_accelerators_are_left_alone() -> None:
    nodes = [node("a", CPU=8, GPU=1, **{"accelerator_type:A100": 1}), node("b", CPU=8, GPU=1)]
    assert list(rooms(nodes, gpus_per_host=1, accelerator_type="A100")) == ["a"]


def test_trials_of_several_workers_share_the_room() -> None:
    found = rooms([node("a", CPU=8), node("b", CPU=8)], cpus_per_host=2)
    assert [trials_at_a_time(found, workers) for workers in (1, 3, 16)] == [8, 2, 1]


def test_what_stays_beside_the_driver_asks_for_its_node_alone() -> None:
    nodes = [{**node("a", **{"node:10.0.0.1": 1.0}), "NodeManagerAddress": "10.0.0.1"}]
    nodes.append({**node("b", CPU=8, **{"node:10.0.0.1": 1.0}), "NodeManagerAddress": "10.0.0.1"})
    found = {"bundles": [{"node:10.0.0.1": 0.001}], "bundle_label_selector": [{"ray.io/node-id": "a"}]}
    assert beside("a", nodes) == found
    assert beside("c", nodes) is None
