from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raylora import __version__, cli
from raylora.errors import Interrupted, UserError

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "cli.md"


def commands() -> list[str]:
    folder = Path(cli.__file__).parent
    files = [path for path in folder.rglob("*.py") if not path.stem.startswith("_")]
    return sorted(str(path.relative_to(folder).with_suffix("")).replace("_", "-").replace("/", " ") for path in files)


@pytest.mark.parametrize("command", commands())
def test_every_file_is_a_command_with_help(command, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert f"usage: raylora {command}" in capsys.readouterr().out


def test_help_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys\nfrom raylora.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'ray', 'transformers', 'pandas', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "usage: raylora" in done.stdout


def test_version_is_told(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"raylora {__version__}\n"


@pytest.mark.parametrize(
    ("ended", "status", "told"),
    [
        (UserError("name: taken; choose another"), 2, "raylora: name: taken; choose another\n"),
        (Interrupted("interrupted; `raylora resume x`"), 130, "raylora: interrupted; `raylora resume x`\n"),
        (KeyboardInterrupt(), 130, "raylora: interrupted\n"),
        (
            PermissionError(13, "Permission denied", "x.md"),
            1,
            "raylora: x.md: Permission denied; use a place that can be read and written\n",
        ),
    ],
    ids=["mistake", "interrupted-run", "interrupted", "forbidden-place"],
)  # fmt: skip
def test_exit_status_tells_how_it_ended(ended, status, told, monkeypatch, capsys) -> None:
    def fail(options) -> None:
        raise ended

    monkeypatch.setattr("raylora.cli.tasks.run", fail)
    assert cli.main(["tasks"]) == status
    assert capsys.readouterr().err == told


def test_unknown_command_is_a_mistake(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["tun"])
    assert ended.value.code == 2 and "invalid choice" in capsys.readouterr().err


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    below = {
        name: command for group in groups for part in group.choices.values() for name, command in parsers(part).items()
    }
    return below if groups else {parser.prog.removeprefix("raylora "): parser}


def test_page_has_the_answer_of_every_command_that_takes_json() -> None:
    rows = [line for line in PAGE.read_text().partition("## JSON")[2].splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall("`([^`]+)`", row.split("|")[1])}
    answers = {name for name, parser in parsers(cli.make_parser()).items() if "--json" in parser.format_help()}
    assert told == answers - {"schema"}


def test_page_has_every_exit_status() -> None:
    listed = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    statuses = [cli.DONE, cli.FAILED, cli.MISTAKE, cli.INTERRUPTED]
    assert [int(status) for status in listed if status.isdigit()] == statuses


def test_changes_and_flags_may_be_given_in_any_order(tmp_path, monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr("raylora.cli.plan.run", lambda options: seen.update(vars(options)))
    words = "plan a.yaml name=a --budget 5m task.train_rows=8 --json plan.json search.trials=2"
    assert cli.main(words.split()) == 0
    assert seen["overrides"] == ["name=a", "task.train_rows=8", "search.trials=2"]
    assert (seen["spec"], seen["budget"]) == ("a.yaml", "5m")


def test_an_unknown_flag_is_refused_with_the_one_that_was_meant_however_many_changes_follow(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["plan", "a.yaml", "--budgte", "5m", "search.trials=2"])
    told = capsys.readouterr().err
    assert "--budgte" in told and "did you mean --budget?" in told
