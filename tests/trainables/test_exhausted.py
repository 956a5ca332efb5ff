"""What counts as memory that has run out."""

from __future__ import annotations

import pytest
import torch

from trainables.exhausted import NoRoom, is_exhausted, oom_kills


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        NoRoom("one row"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_errors_of_memory_are_known(error: BaseException) -> None:
    assert is_exhausted(error)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_are_not(error: BaseException) -> None:
    assert not is_exhausted(error)


def test_an_allocation_beyond_the_machine_is_one() -> None:
    with pytest.raises(Exception, match="memory") as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_exhausted(caught.value)


def test_kills_are_counted_and_never_fewer_than_none() -> None:
    assert oom_kills() >= 0
