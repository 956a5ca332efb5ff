from __future__ import annotations

import subprocess
import sys

import pytest

import searchers


def test_every_searcher_is_found_by_name_and_says_what_it_is() -> None:
    assert searchers.available() == ["cmaes", "gp", "grid", "language", "latent", "nomad", "optuna_gp", "random", "tpe"]
    for name, cls in searchers.SEARCHERS.classes().items():
        assert cls.summary
        assert type(searchers.make_searcher(name)) is cls
        assert getattr(searchers, cls.__name__) is cls


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'bayes' is unknown; choose one of cmaes, gp, grid, .*, random, tpe"):
        searchers.make_searcher("bayes")
    with pytest.raises(ValueError, match=r"searcher random: .*colour"):
        searchers.make_searcher("random", colour="red")
    with pytest.raises(AttributeError):
        _ = searchers.nothing


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, searchers; print([m for m in ('torch', 'ray', 'optuna', 'transformers') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
