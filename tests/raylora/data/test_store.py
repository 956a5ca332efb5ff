from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from raylora.data import store
from raylora.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    yield tmp_path / "data"
    store.release()


class Maker:
    """Fills entries and counts how often."""

    def __init__(self, size: int = 1000) -> None:
        self.size, self.made = size, 0

    def __call__(self, folder: Path) -> dict[str, object]:
        self.made += 1
        (folder / "a.arrow").write_bytes(b"x" * self.size)
        (folder / "of-a-task-run-twice.arrow").write_bytes(b"y")
        np.save(folder / "keys.npy", np.arange(4))
        return {"blocks": ["a.arrow"], "rows": 4}


def obtain(key: str, make: Maker) -> bool:
    return store.obtain(key, make)[1]


def test_an_entry_is_made_once() -> None:
    make = Maker()
    entry, found = store.obtain("k", make)
    again, found_again = store.obtain("k", make)
    assert (found, found_again, make.made) == (False, True, 1)
    assert again == entry
    assert entry.array("keys").tolist() == [0, 1, 2, 3]
    assert sorted(path.name for path in entry.folder.iterdir()) == ["a.arrow", "entry.json", "in-use", "keys.npy"]


@pytest.mark.parametrize("harm", ["cut", "swapped", "gone", "no list", "foreign list"])
def test_a_torn_or_foreign_entry_is_made_anew(harm, home) -> None:
    make = Maker()
    obtain("k", make)
    block, listed = home / "k" / "a.arrow", home / "k" / "entry.json"
    if harm == "cut":
        block.write_bytes(b"x" * 10)
    elif harm == "swapped":
        block.write_bytes(b"z" * 1000)
        os.utime(block, ns=(1, 1))
    elif harm == "gone":
        block.unlink()
    elif harm == "no list":
        listed.write_text("{")
    else:
        listed.write_text(json.dumps({"files": {}, "about": {"blocks": ["a.arrow"]}}))
    assert not obtain("k", make)
    assert make.made == 2
    assert block.read_bytes() == b"x" * 1000


def test_what_an_interrupted_run_left_is_no_entry_and_goes(home) -> None:
    left = home / ".k.work-1"
    left.mkdir(parents=True)
    (left / "a.arrow").write_bytes(b"x")
    assert store.entries() == []
    obtain("k", Maker())
    assert not left.exists()


def test_a_failure_leaves_nothing(home) -> None:
    def fail(folder: Path) -> dict[str, object]:
        (folder / "a.arrow").write_bytes(b"x")
        raise UserError("task.path: no rows")

    with pytest.raises(UserError, match="no rows"):
        store.obtain("k", fail)
    assert [path for path in home.iterdir() if path.is_dir()] == []


def test_the_entries_not_used_for_longest_go_first(home) -> None:
    for age, key in enumerate(("old", "middle", "new")):
        obtain(key, Maker(10_000))
        os.utime(home / key / store.ENTRY, (1000 + age, 1000 + age))
    store.release()
    os.utime(home / "old" / store.ENTRY, (2000, 2000))  # used again
    store.shrink(22_000)
    assert [entry.folder.name for entry in store.entries()] == ["old", "new"]


def test_what_is_in_use_stays(home) -> None:
    obtain("k", Maker())
    assert store.shrink(0) == 0
    assert store.clean() == (0, 1)
    store.release()
    assert store.clean() == (1, 0)


def test_two_processes_that_want_the_same_make_it_once(home) -> None:
    code = textwrap.dedent("""
        import time
        from raylora.data import store
        def make(folder):
            time.sleep(1)
            (folder / "a.arrow").write_bytes(b"x")
            return {"blocks": ["a.arrow"], "rows": 1}
        print(store.obtain("k", make)[1])
    """)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in both) == ["False", "True"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"RAYLORA_HOME: cannot keep rows in .*set RAYLORA_HOME to a writable folder"):
        store.obtain("k", Maker())


def test_the_order_and_the_bounds_of_parts_count_in_a_digest() -> None:
    assert len({store.digest("ab", "c"), store.digest("a", "bc"), store.digest("c", "ab")}) == 3
