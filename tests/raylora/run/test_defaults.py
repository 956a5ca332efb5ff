"""The default space, however small the matrices: no trial fails."""

from __future__ import annotations

import json

import pytest

from raylora.run import experiment
from raylora.spec import load
from trainables.journal import Journal
from trainables.testing import make_tiny_model

TRIALS = 8


@pytest.fixture(scope="module")
def narrow_model(tmp_path_factory):
    """Its largest matrix is 8 x 22: most ranks of the default space are beyond its smaller sides."""
    return make_tiny_model(tmp_path_factory.mktemp("narrow") / "model", hidden=8, layers=1)


# One that knows what is promising and one that begins in a corner. Their own tests show that all stay in the space.
@pytest.mark.real
@pytest.mark.parametrize("searcher", ["language", "grid"])
def test_every_trial_of_the_default_space_finishes(
    searcher, narrow_model, write_spec, ray_local, tmp_path, capsys
) -> None:
    file = write_spec(
        model=str(narrow_model),
        space={},
        default_recipe={},
        search={"searcher": searcher, "trials": TRIALS, "llm": str(narrow_model)},
        train={"samples": 16},
        final={"enabled": False},
    )
    summary = experiment.tune(load(file))
    assert summary["trials"] == TRIALS
    events = [row["event"] for row in Journal(tmp_path / "runs" / "run").rows()]
    assert events.count("finish") == TRIALS
    assert not {"failed", "infeasible"} & set(events)
    shown = "".join(capsys.readouterr())
    assert "Traceback" not in shown and "space: left out" in shown
    assert json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())["trials"] == TRIALS
