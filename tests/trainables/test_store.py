from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from trainables import store as module
from trainables.store import FILES, LATEST, Store, mark, store_at, store_of, told


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_at(f"file://{tmp_path}/there")


def files(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return folder


def test_an_object_is_replaced_whole_and_none_is_none(store) -> None:
    assert store.get("a/b") is None
    store.put("a/b", b"first")
    store.put("a/b", b"2")
    assert store.get("a/b") == b"2"
    store.remove("a")
    store.remove("a")
    assert store.names() == []


def test_records_of_all_writers_come_in_their_order_and_are_read_once(store, monkeypatch) -> None:
    other = Store(store.uri)
    for number in range(6):
        (store, other)[number % 2].add_record("journal", {"event": "start"}, json.dumps({"n": number}).encode())
    assert [row["n"] for row in other.records("journal")] == list(range(6))
    monkeypatch.setattr(other, "get", lambda name: pytest.fail(f"{name} was read again"))
    assert len(other.records("journal")) == 6


def test_a_record_that_is_tried_again_is_there_once(store, monkeypatch) -> None:
    write, failed = store._write, []

    def lost_answer(path: str, data: bytes) -> None:
        write(path, data)
        if not failed:
            failed.append(path)
            raise OSError("timed out")

    monkeypatch.setattr(module, "_PAUSES", (0.0,))
    monkeypatch.setattr(store, "_write", lost_answer)
    store.add_record("journal", {"event": "finish"}, b'{"event": "finish"}')
    assert failed and len(store.records("journal")) == 1


def test_a_folder_travels_with_what_has_changed_alone(store, tmp_path, monkeypatch) -> None:
    here = files(tmp_path / "here", a="1", b="2", own="3")
    store.put_folder(here, "f", skip=lambda name: name == "own")
    there = tmp_path / "elsewhere"
    assert store.get_folder("f", there) and sorted(file.name for file in there.iterdir()) == ["a", "b"]
    put: list[str] = []
    monkeypatch.setattr(store, "put", lambda name, data: put.append(name))
    store.put_folder(there, "f")
    assert put == []
    files(there, b="changed")
    store.put_folder(there, "f")
    assert put == ["f/b", f"f/{FILES}"]


def test_a_folder_without_its_list_is_not_there(store, tmp_path) -> None:
    store.put("f/a", b"half of it")
    assert not store.get_folder("f", tmp_path / "here")


def test_a_list_that_names_a_file_outside_its_folder_is_refused(store, tmp_path) -> None:
    store.put("f/x", b"1")
    store.put(f"f/{FILES}", json.dumps({"../x": [1, 1]}).encode())
    with pytest.raises(OSError, match="outside"):
        store.get_folder("f", tmp_path / "here")


def test_a_state_that_its_writer_did_not_finish_is_not_read(store, tmp_path, monkeypatch) -> None:
    store.put_state(files(tmp_path / "one", position="1"), "checkpoints/k")
    put = store.put

    def killed(name: str, data: bytes) -> None:
        if name.endswith(LATEST):
            raise KeyboardInterrupt
        put(name, data)

    monkeypatch.setattr(store, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        store.put_state(files(tmp_path / "two", position="2", more="3"), "checkpoints/k")
    assert store.get_state("checkpoints/k", tmp_path / "here")
    assert [(file.name, file.read_text()) for file in (tmp_path / "here").iterdir()] == [("position", "1")]


def test_a_newer_state_takes_the_place_of_the_former(store, tmp_path) -> None:
    assert not store.get_state("k", tmp_path / "here")
    store.put_state(files(tmp_path / "one", position="1"), "k")
    store.put_state(files(tmp_path / "two", position="2"), "k")
    assert store.get_state("k", tmp_path / "here") and (tmp_path / "here" / "position").read_text() == "2"
    assert sorted(name.rpartition("/")[2] for name in store.names("k")) == [LATEST, "position"]


def test_a_working_folder_knows_its_store_and_another_has_none(store, tmp_path) -> None:
    mark(tmp_path / "work", store.uri)
    found = store_of(tmp_path / "work")
    assert found is store and pickle.loads(pickle.dumps(found)) is store
    assert told(tmp_path / "work") == store.uri and told(tmp_path) == str(tmp_path) and store_of(tmp_path) is None


def test_a_kind_of_store_that_nobody_knows_is_an_error_of_the_place() -> None:
    with pytest.raises(OSError, match="nowhere://b"):
        Store("nowhere://b/runs").get("a", tries=1)
