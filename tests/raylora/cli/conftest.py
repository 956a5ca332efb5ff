"""What tests of commands share: a mistake is one line and status 2, an answer in JSON is all of standard output."""

from __future__ import annotations

import json

import pytest

from raylora.cli import main


@pytest.fixture
def mistake(capsys):
    """Run a command that has to be refused; returns the one line that it tells."""

    def run(*arguments) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        told = capsys.readouterr()
        lines = told.err.splitlines()
        assert told.out == "" and len(lines) == 1 and lines[0].startswith("raylora: ")
        return lines[0].removeprefix("raylora: ")

    return run


@pytest.fixture
def answer(capsys):
    """Run a command with a bare `--json`; returns what it answers."""

    def run(*arguments):
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def table(capsys):
    """Run a command; returns what it prints for people."""

    def run(*arguments) -> str:
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return run
