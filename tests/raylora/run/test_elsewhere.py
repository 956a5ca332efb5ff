from __future__ import annotations

import sys

import pytest

from raylora.errors import UserError
from raylora.run.elsewhere import find_python


def test_this_environment_is_taken_where_none_is_named(monkeypatch) -> None:
    monkeypatch.delenv("X_PYTHON", raising=False)
    assert find_python("json", "X_PYTHON", "--engine", "") == sys.executable


def test_a_package_that_is_nowhere_is_one_line_with_the_remedy(monkeypatch) -> None:
    monkeypatch.delenv("X_PYTHON", raising=False)
    with pytest.raises(UserError, match="--engine: no_such is not installed; pip install it, or set X_PYTHON"):
        find_python("no_such", "X_PYTHON", "--engine", "pip install it")


@pytest.mark.parametrize("named", ["/gone/python", "/bin/false"])
def test_a_named_python_has_to_have_it(monkeypatch, named) -> None:
    monkeypatch.setenv("X_PYTHON", named)
    with pytest.raises(UserError, match=f"X_PYTHON = {named}: it is no Python that has json; pip install it there"):
        find_python("json", "X_PYTHON", "--engine", "pip install it")
