from __future__ import annotations

import numpy as np
import pytest

from raylora.data import store


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache with one entry that nobody uses."""
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    folder = store.cache_root() / ("0" * 32)

    def make(work) -> dict[str, object]:
        np.save(work / "keys.npy", np.arange(100))
        return {"label": "train rows", "rows": 100, "blocks": []}

    store.obtain(folder.name, make)
    store.release()
    return folder


def test_entries_are_listed_with_their_size_and_the_limit(kept, answer, table) -> None:
    told = answer("cache")
    assert told["bytes"] == told["entries"][0]["bytes"] > 800
    assert told["limit_bytes"] == 20e9
    assert (told["entries"][0]["label"], told["entries"][0]["rows"]) == ("train rows", 100)
    assert "train rows" in table("cache")


def test_clean_empties_the_cache(kept, answer) -> None:
    assert answer("cache", "clean")["deleted"] == 1
    assert not kept.exists()
    assert answer("cache")["entries"] == []


def test_a_limit_that_is_no_number_is_refused(kept, monkeypatch, mistake) -> None:
    monkeypatch.setenv("RAYLORA_DATA_CACHE_GB", "much")
    assert mistake("cache").startswith("RAYLORA_DATA_CACHE_GB: 'much'; allowed:")
