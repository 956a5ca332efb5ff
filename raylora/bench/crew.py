"""Processes that do a piece of a measurement together, as the workers of a trial do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any


class Crew:
    """Processes of one torch.distributed group, started once: each of `run` is a piece of work for all of them.

    Over NCCL where each of them can have a GPU of its own, else over gloo. A context manager; leaving it ends them.

    Args:
        count: of processes.
    """

    def __init__(self, count: int) -> None:
        # Forked ones could not use a GPU that this process has looked at.
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._lines, self._processes = [], []
        for rank in range(count):
            line, other = context.Pipe()
            process = context.Process(target=_work, args=(rank, count, self._folder.name, other), daemon=True)
            process.start()
            other.close()
            self._lines.append(line)
            self._processes.append(process)

    def run(self, body: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `body(rank, *arguments)` returned in each of them, `(count,)`; it and its results travel by pickle.

        Raises:
            RuntimeError: one of them failed, or died; none of them works any longer.
        """
        for line in self._lines:
            line.send((body, arguments))
        found: dict[int, Any] = {}
        while len(found) < len(self._lines):
            ready = wait([line for rank, line in enumerate(self._lines) if rank not in found])
            # One that failed ends all: the others may wait for it.
            found |= {rank: self._answer(rank) for rank, line in enumerate(self._lines) if line in ready}
        return [found[rank] for rank in range(len(self._lines))]

    def _answer(self, rank: int) -> Any:
        try:
            error, answer = self._lines[rank].recv()
        except (EOFError, OSError):
            error, answer = f"process {rank} died; the kernel may have ended it for want of memory", None
        if error:
            self.close()
            raise RuntimeError(error)
        return answer

    def close(self) -> None:
        """End them, whatever they do."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._folder.cleanup()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


def _work(rank: int, world: int, folder: str, line: Connection) -> None:
    """Body of a process. Ctrl-C is the first process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    import torch
    import torch.distributed as dist

    from trainables.host import quiet_libraries

    quiet_libraries()
    own_gpu = torch.cuda.device_count() >= world
    if own_gpu:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if own_gpu else "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world
    )
    with contextlib.suppress(EOFError, OSError):
        while True:
            body, arguments = line.recv()
            try:
                line.send(("", body(rank, *arguments)))
            except Exception:
                line.send((traceback.format_exc(), None))
