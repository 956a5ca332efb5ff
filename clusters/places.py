"""Which nodes of a cluster have room for what: hosts, which `resources.hosts: auto` counts, and what must not leave."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Room:
    """What a node has: places for hosts, and CPU threads for each of them."""

    hosts: int
    threads: int


def rooms(
    nodes: Iterable[Mapping[str, Any]],
    *,
    cpus_per_host: int | None = None,
    gpus_per_host: float = 0.0,
    accelerator_type: str | None = None,
) -> dict[str, Room]:
    """The nodes with room for a host or more, by their ids.

    A host has `gpus_per_host` GPUs, below 1 a share of one, and `cpus_per_host` CPUs. Without either it has a node to
    itself, with all of its CPUs. A node that shows Ray no CPU, such as a head without trials, has no room.

    Args:
        nodes: as `ray.nodes()` tells of them.
        accelerator_type: of the GPUs, as Ray calls it.
    """
    found = {}
    for node in nodes:
        resources = node.get("Resources", {})
        if not node.get("Alive", True) or (
            accelerator_type and f"accelerator_type:{accelerator_type}" not in resources
        ):
            continue
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        by_cpus = cpus // cpus_per_host if cpus_per_host else int(cpus > 0)
        hosts = by_cpus
        if gpus_per_host:
            # No share of a host lies on two GPUs.
            places = gpus * math.floor(1 / gpus_per_host + 1e-9) if gpus_per_host < 1 else int(gpus // gpus_per_host)
            hosts = min(places, by_cpus) if cpus_per_host else places
        if hosts:
            found[str(node["NodeID"])] = Room(hosts, cpus_per_host or max(1, cpus // hosts))
    return found


def beside(node_id: str, nodes: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A placement group of Ray, as keywords, for what is to run on that node and nowhere else.

    It asks for so little of the resource that every node has of its own, whether or not it shows any CPU, that a
    thousand of them fit. None where the node is not among `nodes`, as `ray.nodes()` tells of them.
    """
    for node in nodes:
        name = f"node:{node.get('NodeManagerAddress')}"
        if node["NodeID"] == node_id and node.get("Alive", True) and name in node.get("Resources", {}):
            # Nodes on one machine share its address: the label is the node's alone.
            return {"bundles": [{name: 0.001}], "bundle_label_selector": [{"ray.io/node-id": node_id}]}
    return None


def trials_at_a_time(found: Mapping[str, Room], workers: int = 1) -> int:
    """Trials of so many workers that there is room for, over all nodes: one at least."""
    return max(1, sum(room.hosts for room in found.values()) // workers)
