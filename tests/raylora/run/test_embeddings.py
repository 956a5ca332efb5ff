from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from raylora.run.embeddings import EMBEDDINGS, keep_embeddings, read_embeddings
from raylora.run.folder import read_run
from trainables.journal import Journal


@pytest.fixture
def run(old_run):
    """A run's folder, its space, and the keys of its trials."""
    folder, spec = read_run(old_run("finished"))
    return SimpleNamespace(folder=folder, space=spec.to_space(), keys=list(Journal(folder).started()))


def searcher(run, embeddings):
    return SimpleNamespace(space=run.space, embeddings=embeddings)


def test_embeddings_are_read_as_they_lay_to_each_other(run) -> None:
    made = np.random.default_rng(0).normal(size=(len(run.keys), 300)).astype(np.float32)
    keep_embeddings(run.folder, searcher(run, lambda indices: {"learned": made}), pytest.fail)
    found = read_embeddings(run.folder)["learned"]
    assert list(found) == run.keys
    kept = np.stack(list(found.values()))
    assert kept.shape[1] <= len(run.keys)
    assert np.linalg.norm(kept[0] - kept[-1]) == pytest.approx(np.linalg.norm(made[0] - made[-1]), rel=1e-4)


def test_a_searcher_that_has_none_leaves_no_file(run) -> None:
    keep_embeddings(run.folder, searcher(run, lambda indices: {}), pytest.fail)
    assert not (run.folder / EMBEDDINGS).exists() and read_embeddings(run.folder) == {}


def test_embeddings_that_fail_are_told_and_cost_nothing_else(run) -> None:
    def broken(indices):
        raise RuntimeError("the device is gone")

    told: list[str] = []
    keep_embeddings(run.folder, searcher(run, broken), told.append)
    assert told == ["the searcher's embeddings are not kept: RuntimeError: the device is gone"]


def test_a_torn_file_is_read_as_none(run) -> None:
    (run.folder / EMBEDDINGS).write_bytes(b"PK\x03\x04torn")
    assert read_embeddings(run.folder) == {}
