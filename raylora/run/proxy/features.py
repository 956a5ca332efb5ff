"""What selectors read of a run's rows, found once by its hosts and kept in its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from raylora.run.prepare import Run, host_options
from trainables.rows import Rows

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from trainables.features import Kind


class KeptFeatures:
    """`selectors.Features` of a run in progress; files of an earlier attempt are read."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def lengths(self) -> np.ndarray:
        return self._lengths

    @cached_property
    def _lengths(self) -> np.ndarray:
        # Of texts to classify, which have no responses, those of the texts.
        rows = self.run.data.train
        return np.array([len(row["response_ids"]) or len(row["prompt_ids"]) for row in rows])

    def losses(self) -> np.ndarray:
        return self._kept("losses", "train", self.run.data.train)

    def embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        train, validation = self.run.data.train, self.run.data.validation
        return self._kept("embeddings", "train", train), self._kept("embeddings", "validation", validation)

    def _kept(self, kind: Kind, split: str, rows: Rows) -> np.ndarray:
        file = self.run.folder / f"{kind}-{split}.npy"
        if not file.is_file():
            self.run.progress.say(f"proxy: {kind} of {len(rows):,} {split} rows under the base model")
            found = self._found(kind, rows)
            fresh = file.with_suffix(".fresh.npy")
            np.save(fresh, found.astype(np.float16) if kind == "embeddings" else found)
            os.replace(fresh, file)
        return np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)

    def _found(self, kind: Kind, rows: Rows) -> np.ndarray:
        import ray

        with self._hosts() as hosts:
            parts = shares(rows, len(hosts))
            calls = [host.features.remote(part, kind) for host, part in zip(hosts, parts, strict=False)]
            return np.concatenate(ray.get(calls))

    @contextmanager
    def _hosts(self) -> Iterator[list[ActorHandle]]:
        """The run's, or one for the duration where trials have worker groups of their own."""
        if self.run.hosts:
            yield self.run.hosts
            return
        import ray

        from trainables.host import start_hosts

        hosts = start_hosts(self.run.setup, 1, **host_options(self.run.spec))
        try:
            yield hosts
        finally:
            for host in hosts:
                ray.kill(host)


def shares(rows: Rows, count: int) -> list[Rows]:
    """The rows in `count` parts of about the same size, in order; none is empty."""
    bounds = np.linspace(0, len(rows), min(count, len(rows)) + 1).astype(int)
    return [rows[int(start) : int(end)] for start, end in pairwise(bounds)]
