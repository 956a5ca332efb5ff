from __future__ import annotations

import pytest

from raylora.build import build_task
from raylora.errors import UserError
from raylora.run.searcher import build_searcher
from raylora.spec import load
from searchers.random import RandomSearch


def test_a_searcher_is_given_what_it_wants(write_spec, monkeypatch) -> None:
    spec = load(write_spec(space__variant=["lora", "loft"]))
    task, given = build_task(spec), {}

    def keep(self, *, samples=None, scales=None, ratios=None, **common) -> None:
        given.update(samples=samples, scales=scales, ratios=ratios)

    monkeypatch.setattr(RandomSearch, "__init__", keep)
    monkeypatch.setattr(RandomSearch, "wants", lambda options: frozenset({"samples", "scales", "ratios"}))
    build_searcher(spec, task, 96, ratios={"lora": 1.0, "loft": 3.0})
    assert given["samples"] == 96 and given["scales"]["loft"] == "1"
    # Whatever was measured of LoFT: its rate is that of full fine-tuning.
    assert given["ratios"] == {"lora": 1.0, "loft": 0.1}


def test_what_no_run_knows_is_refused_in_one_line(write_spec, monkeypatch) -> None:
    spec = load(write_spec())
    monkeypatch.setattr(RandomSearch, "wants", lambda options: frozenset({"weather"}))
    with pytest.raises(UserError, match=r"random.: wants .weather.; allowed: family, learn_from, llm, "):
        build_searcher(spec, build_task(spec), 96)


def test_a_belief_in_what_the_fitted_space_left_out_is_told_and_passed_over(write_spec, monkeypatch) -> None:
    from searchers.language import LanguageBOSearch

    given, told = {}, []
    spec = load(write_spec(search={"searcher": "language", "prior": {"variant": "pissa", "rank": 4, "strength": 2}}))
    fitted = load(write_spec(space__variant="lora")).to_space()
    monkeypatch.setattr(LanguageBOSearch, "__init__", lambda self, **options: given.update(options))
    monkeypatch.setattr(
        "raylora.run.searcher._known", lambda want, spec, *_: spec.search.prior if want == "prior" else 0
    )
    build_searcher(spec, build_task(spec), 96, space=fitted, say=told.append)
    assert given["prior"] == {"rank": 4, "strength": 2}
    assert told == ["search.prior.variant = 'pissa': left out, as the model cannot have it"]
