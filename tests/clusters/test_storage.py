"""Storage that is not shared by all nodes is refused with one line, and no marker is left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clusters import storage
from clusters.storage import check_cluster_storage

NODES = [
    {"NodeID": "a" * 8, "NodeManagerAddress": "10.0.0.1", "Alive": True},
    {"NodeID": "b" * 8, "NodeManagerAddress": "10.0.0.2", "Alive": True},
    {"NodeID": "c" * 8, "NodeManagerAddress": "10.0.0.3", "Alive": False},
]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PATIENCE_S", 0.0)


def asker(folders: Sequence[Path | str]) -> Any:
    """Answers for each node from the folder that it mounts at the storage path."""

    def ask(nodes: Any, arguments: Any, timeout_s: float) -> list[str | None]:
        assert [node["NodeManagerAddress"] for node in nodes] == ["10.0.0.1", "10.0.0.2"]
        return [storage._probe(str(folder), *given[1:]) for folder, given in zip(folders, arguments, strict=True)]

    return ask


def test_shared_folder_passes_and_stays_clean(tmp_path: Path) -> None:
    shared = tmp_path / "runs"
    check_cluster_storage(str(shared), nodes=NODES, ask=asker([shared, shared]))
    assert list(shared.iterdir()) == []


def test_folder_of_one_node_alone_is_refused(tmp_path: Path) -> None:
    shared, own = tmp_path / "runs", tmp_path / "own"
    own.mkdir()
    with pytest.raises(ValueError, match="storage_path") as caught:
        check_cluster_storage(str(shared), nodes=NODES, ask=asker([shared, own]))
    line = str(caught.value)
    assert "\n" not in line
    assert "storage_path" in line and str(shared) in line and "10.0.0.2" in line and "10.0.0.1" not in line
    assert list(shared.iterdir()) == []


def test_node_that_only_reads_the_shared_folder_is_refused(tmp_path: Path) -> None:
    def ask(nodes: Any, arguments: Any, timeout_s: float) -> list[str | None]:
        return [storage._probe(*arguments[0]), None]  # the second says yes, and wrote nothing here

    with pytest.raises(ValueError, match=r"10\.0\.0\.2 writes elsewhere"):
        check_cluster_storage(str(tmp_path), nodes=NODES, ask=ask)


def test_a_single_node_needs_no_question(tmp_path: Path) -> None:
    def ask(*_: Any) -> list[str | None]:
        raise AssertionError("asked")

    check_cluster_storage(str(tmp_path), nodes=NODES[:1], ask=ask)


def test_a_store_that_a_node_cannot_reach_is_refused(tmp_path: Path) -> None:
    shared, own = f"file://{tmp_path}/store", f"file://{tmp_path}/elsewhere"
    for folder in ("store", "elsewhere"):
        (tmp_path / folder).mkdir()
    check_cluster_storage(shared, nodes=NODES, ask=asker([shared, shared]))
    with pytest.raises(ValueError, match=r"10\.0\.0\.2 does not see the driver's file"):
        check_cluster_storage(shared, nodes=NODES, ask=asker([shared, own]))
    assert list((tmp_path / "store").iterdir()) == []


def test_storage_that_the_driver_cannot_write_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot write there"):
        check_cluster_storage("/proc/runs", nodes=NODES, ask=asker([]))


def test_nodes_of_a_real_cluster_are_asked_by_pinned_tasks(ray_local: None, tmp_path: Path) -> None:
    import ray

    node = next(node for node in ray.nodes() if node["Alive"])
    marker = tmp_path / "marker"
    marker.write_text("token")
    given = [(str(tmp_path), "marker", "token", "answer"), (str(tmp_path), "marker", "other", "none")]
    replies = storage._ask([node, node], given, 30.0)
    assert replies == [None, "sees another file"]
    assert (tmp_path / "answer").read_text() == "token"
