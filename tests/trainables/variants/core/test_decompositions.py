"""Decompositions of base weights: right, kept once, and the same bits whether computed or read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.variants.core import decompositions
from trainables.variants.core.decompositions import bottom_svd, decompose, first_qr, top_svd


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    monkeypatch.delenv("RAYLORA_DECOMPOSITIONS", raising=False)
    monkeypatch.setattr(decompositions, "SMALLEST", 0)
    return tmp_path / "decompositions"


def weight(rows: int = 40, columns: int = 24, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("count", [3, 8, 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_are_those_of_the_whole_decomposition(folder: Path, count: int, dtype: torch.dtype) -> None:
    w = weight(dtype=dtype)
    wide = w.double()
    values = torch.linalg.svdvals(wide)
    for parts, expected in ((top_svd(w, count, 60), values[:count]), (bottom_svd(w, count), values[-count:])):
        u, s, v = parts
        assert (u.shape, s.shape, v.shape) == ((40, count), (count,), (24, count))
        torch.testing.assert_close(s.double(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(wide @ v.double(), (u * s).double(), rtol=1e-3, atol=1e-2)
    q, r = first_qr(w, count)
    torch.testing.assert_close(q.T @ q, torch.eye(count), rtol=0, atol=1e-5)
    torch.testing.assert_close((q @ r)[:, :count].double(), wide[:, :count], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(r.double(), q.T.double() @ wide, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", [top_svd, bottom_svd, first_qr])
def test_cold_warm_and_uncached_results_have_the_same_bits(folder: Path, monkeypatch: Any, part: Any) -> None:
    w = weight(dtype=torch.bfloat16)
    monkeypatch.setenv("RAYLORA_DECOMPOSITIONS", "off")
    uncached = part(w, 5)
    assert not folder.exists()
    monkeypatch.delenv("RAYLORA_DECOMPOSITIONS")
    torch.manual_seed(1)
    cold = part(w, 5)
    assert len(files(folder)) == 1
    torch.manual_seed(2)
    warm = part(w.clone(), 5)
    for one, two, three in zip(cold, warm, uncached, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)
        assert one.stride() == two.stride() == three.stride()  # products with it have the same bits too


def test_another_weight_kind_type_or_layout_is_another_file_and_ranks_of_a_class_share_one(folder: Path) -> None:
    w = weight(24, 24)
    top_svd(w, 3)
    top_svd(w, 8)
    assert len(files(folder)) == 1
    changed = w.clone()
    changed[3, 5] += 1e-6
    top_svd(changed, 3)
    top_svd(w, 9)
    top_svd(w, 3, 7)
    top_svd(w.bfloat16(), 3)
    top_svd(w.T, 3)
    bottom_svd(w, 3)
    first_qr(w, 3)
    assert len(files(folder)) == 8


def test_a_broken_file_is_made_anew(folder: Path) -> None:
    cold = first_qr(weight(), 4)
    (path,) = files(folder)
    path.write_bytes(path.read_bytes()[:50])
    again = first_qr(weight(), 4)
    assert all(torch.equal(one, two) for one, two in zip(cold, again, strict=True))
    assert path.stat().st_size > 50


def test_a_folder_that_cannot_be_written_costs_a_warning_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = folder.parent / "file"
    blocked.write_text("")
    monkeypatch.setenv("RAYLORA_HOME", str(blocked))
    q, _ = first_qr(weight(), 4)
    assert q.shape == (40, 4)
    assert "set RAYLORA_HOME to a writable folder" in caplog.text


def test_hosts_that_start_together_decompose_once_and_leave_no_scraps(folder: Path) -> None:
    calls: list[int] = []

    def compute(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"sum": matrix.sum(dim=0)}

    threads = [threading.Thread(target=decompose, args=(weight(), "test", compute)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(name for name in os.listdir(folder) if not name.endswith(".lock")) == [files(folder)[0].name]


def test_small_matrices_stay_off_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    top_svd(weight(), 4)
    assert not (tmp_path / "decompositions").exists()
