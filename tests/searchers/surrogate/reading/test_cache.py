from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from searchers.surrogate.reading.cache import DiskCache, default_folder, key, model_bytes


def stored(folder: Path, name: str, size: int = 100, limit: int = 8 << 30) -> DiskCache:
    cache = DiskCache(name, folder, limit)
    cache.put("a", torch.full((size,), 1.5))
    cache.commit()
    return cache


def aged(cache: DiskCache, seconds: int) -> None:
    os.utime(cache.path, (seconds, seconds))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_another_process_gets_the_same_bits(tmp_path: Path, kind: torch.dtype) -> None:
    tensor = torch.randn(3, 4).to(kind).T
    cache = DiskCache("k", tmp_path)
    cache.put("a", tensor)
    cache.commit()
    got = DiskCache("k", tmp_path).get("a")
    assert got is not None and got.dtype == kind and torch.equal(got, tensor)


def test_what_was_put_is_not_there_before_commit(tmp_path: Path) -> None:
    cache = DiskCache("k", tmp_path)
    cache.put("a", torch.ones(2))
    assert cache.get("a") is None and not list(tmp_path.iterdir())


def test_names_and_keys_that_are_not_there_are_none(tmp_path: Path) -> None:
    stored(tmp_path, "k")
    assert DiskCache("k", tmp_path).get("b") is None
    assert DiskCache("other", tmp_path).get("a") is None


def test_a_tensor_of_another_shape_is_none(tmp_path: Path) -> None:
    stored(tmp_path, "k", size=6)
    assert DiskCache("k", tmp_path).get("a", shape=(2, 3)) is None
    assert DiskCache("k", tmp_path).get("a", shape=(6,)) is not None


def test_later_tensors_are_added_to_earlier_ones(tmp_path: Path) -> None:
    stored(tmp_path, "k")
    cache = DiskCache("k", tmp_path)
    cache.put("b", torch.zeros(2))
    cache.commit()
    assert cache.get("a") is not None and cache.get("b") is not None


def test_a_broken_file_is_as_good_as_none(tmp_path: Path) -> None:
    cache = stored(tmp_path, "k")
    cache.path.write_bytes(b"broken")
    assert cache.get("a") is None


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    cache = stored(tmp_path, "k")
    cache.path.write_bytes(b"broken")
    assert stored(tmp_path, "k").get("a") is not None


def test_a_folder_that_cannot_be_written_costs_the_cache_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert stored(tmp_path / "file" / "folder", "k").get("a") is None


def test_the_least_recently_used_file_makes_room(tmp_path: Path) -> None:
    aged(stored(tmp_path, "old"), 1_000)
    aged(stored(tmp_path, "older"), 500)
    third = stored(tmp_path, "new", limit=1_300)  # 400 bytes each and a header
    assert third.get("a") is not None
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["new", "old"]


def test_reading_counts_as_use(tmp_path: Path) -> None:
    first, second = stored(tmp_path, "first"), stored(tmp_path, "second")
    aged(first, 500)
    aged(second, 1_000)
    DiskCache("first", tmp_path).get("a")
    stored(tmp_path, "third", limit=1_300)
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["first", "third"]


def test_a_set_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    small = stored(tmp_path, "small", size=1)
    large = stored(tmp_path, "large", limit=399)
    assert large.get("a") is None and small.get("a") is not None


def test_nothing_is_left_beside_the_files(tmp_path: Path) -> None:
    stored(tmp_path, "k")
    assert [p.name for p in tmp_path.iterdir()] == ["k.safetensors"]


def test_keys_tell_their_parts_apart() -> None:
    assert key(["a", 1]) == key(["a", 1])
    assert len({key(["ab", "c"]), key(["a", "bc"]), key(["abc"]), key(["ab", "c", ""])}) == 4


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    for name, content in (("one", b"1"), ("same", b"1"), ("other", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
        (tmp_path / name / "README.md").write_text(name)
    one, same, other = (model_bytes(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other


def test_weights_that_change_in_place_are_noticed(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    before = model_bytes(tmp_path)
    weights.write_bytes(b"2")
    os.utime(weights, (1, 1))
    assert model_bytes(tmp_path) != before


def test_the_folder_is_under_the_home_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "embeddings"
    monkeypatch.delenv("RAYLORA_HOME")
    assert default_folder() == Path.home() / ".cache" / "raylora" / "embeddings"
