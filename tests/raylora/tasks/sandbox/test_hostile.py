"""Programs that attack: each scores 0, and afterwards the machine is as it was.

Each file of `hostile/` answers 42, which is right, only where its attack succeeds; those that have no answer to give
try to be taken for right, or leave something behind.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from raylora.tasks.sandbox import Limits, Outcome, Program, Sandbox, available

FOLDER = Path(__file__).parent / "hostile"
FILES = sorted(FOLDER.glob("*.py"))
TESTS = "assert solve() == 42\nassert math.isclose(solve(), 42)\nassert all([abs(solve()) == 42])\n"
LIMITS = Limits(timeout_s=1, wall_s=6, memory_mb=256)
ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif(available().kind is None, reason="no sandbox can be had here")


def programs(victim: str, port: int) -> list[Program]:
    texts = [path.read_text().replace("@VICTIM@", victim).replace("@PORT@", str(port)) for path in FILES]
    return [Program(text, TESTS, entry_point="solve", name=path.stem) for path, text in zip(FILES, texts, strict=True)]


class Surroundings:
    """What an attack could change: a file of the user, a listener, folders that all may write, processes.

    Args:
        scratch: where the sandbox makes its scratch folders.
    """

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.folder = tempfile.mkdtemp(prefix="hostile-victim-", dir="/tmp")
        os.chmod(self.folder, 0o777)
        self.victim = os.path.join(self.folder, "secret")
        Path(self.victim).write_text("secret")
        os.chmod(self.victim, 0o666)
        os.utime(self.victim, (1e9, 1e9))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def look(self) -> dict[str, Any]:
        about = os.stat(self.victim)
        return {
            "victim": [Path(self.victim).read_text(), about.st_mode, about.st_uid, about.st_mtime, about.st_nlink],
            "beside": os.listdir(self.folder),
            "left": os.listdir(self.scratch),
            "temporary": os.path.exists("/tmp/raylora-hostile"),
            "shared": [name for name in os.listdir("/dev/shm") if "hostile" in name],
            "system v": Path("/proc/sysvipc/shm").read_text().count(str(0x52415901)),
            "processes": list(processes(self.scratch)),
            "connections": self.connections(),
        }

    def connections(self) -> int:
        try:
            self.listener.accept()
        except BlockingIOError:
            return 0
        return 1

    def close(self) -> None:
        self.listener.close()
        shutil.rmtree(self.folder)


def processes(scratch: str) -> Iterator[str]:
    """Processes that run below `scratch`, there or removed, whoever their parent is by now."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if scratch in os.readlink(f"/proc/{name}/cwd"):
                yield name
        except OSError:
            continue


UNTOUCHED = {"left": [], "temporary": False, "shared": [], "system v": 0, "processes": [], "connections": 0}


@pytest.fixture(scope="module")
def scratch() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="hostile-scratch-")
    patch = pytest.MonkeyPatch()
    patch.setattr(tempfile, "tempdir", folder)
    yield folder
    patch.undo()
    os.rmdir(folder)


@pytest.fixture(scope="module")
def around(scratch: str) -> Iterator[Surroundings]:
    patch = pytest.MonkeyPatch()
    patch.setenv("HOSTILE_SECRET", "secret")
    surroundings = Surroundings(scratch)
    yield surroundings
    surroundings.close()
    patch.undo()


@pytest.fixture(scope="module")
def ran(around: Surroundings) -> tuple[dict[str, Any], dict[str, Any], dict[str, Outcome]]:
    before = around.look()
    tried = programs(around.victim, around.port)
    outcomes = Sandbox(limits=LIMITS, workers=4).run_tests(tried)
    return before, around.look(), {program.name: outcome for program, outcome in zip(tried, outcomes, strict=True)}


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_attack_scores_nothing(ran: Any, name: str) -> None:
    outcome = ran[2][name]
    assert not outcome.passed, outcome


def test_attacks_leave_nothing_behind(ran: Any) -> None:
    before, after, _ = ran
    assert before == after
    assert {key: after[key] for key in UNTOUCHED} == UNTOUCHED


def test_there_are_attacks_of_every_kind() -> None:
    assert len(FILES) >= 60
    kinds = {path.stem.partition("_")[0] for path in FILES}
    assert kinds >= {"network", "file", "proc", "process", "signal", "memory", "threads", "loop", "output", "verdict"}


def test_the_same_tests_pass_an_honest_program() -> None:
    assert Sandbox(limits=LIMITS).run(Program("def solve():\n    return 42\n", TESTS, entry_point="solve")).passed


AS_NOBODY = """
import json, os, sys, tempfile
sys.path.insert(0, sys.argv[1])
from raylora.tasks.sandbox import Limits, Program, Sandbox, kinds
tried = json.load(sys.stdin)
# Imports what is needed while this process's own interpreter can still be read.
Sandbox("none", unsafe=True).run("pass")
kinds.syscalls.compiled()
os.setgroups([])
user, group = int(sys.argv[5]), int(sys.argv[6])
os.setresgid(group, group, group)
os.setresuid(user, user, user)
os.environ["HOME"] = sys.argv[2]
tempfile.tempdir = sys.argv[2]
box = Sandbox(sys.argv[3] or None, limits=Limits(timeout_s=1, wall_s=6, memory_mb=256), workers=4, python=sys.argv[4])
print(json.dumps([[box.kind, outcome.passed, outcome.kind, outcome.detail] for outcome in
                  box.run_tests([Program(**program) for program in tried])]))
"""


def interpreter_for_all() -> str | None:
    """A Python of 3.11 or newer that an unprivileged user can start."""
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        folders = Path(os.path.realpath(path)).parents
        if os.path.exists(path) and all(os.stat(folder).st_mode & 0o001 for folder in folders):
            told = subprocess.run([path, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True)
            if told.stdout.strip() == b"True":
                return path
    return None


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; the tests above ran as this one")
@pytest.mark.parametrize("kind", ["landlock", "bubblewrap"])
def test_attacks_score_nothing_as_an_unprivileged_user(kind: str, around: Surroundings, scratch: str) -> None:
    python = interpreter_for_all()
    if python is None:
        pytest.skip("no interpreter that an unprivileged user can start")
    if kind in available().missing:
        pytest.skip(available().missing[kind])
    nobody = pwd.getpwnam("nobody")
    os.chown(scratch, nobody.pw_uid, nobody.pw_gid)
    honest = Program("def solve():\n    return 42\n", TESTS, entry_point="solve", name="honest")
    tried = [*programs(around.victim, around.port), honest]
    before = around.look()
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(ROOT), scratch, kind, python, str(nobody.pw_uid), str(nobody.pw_gid)],
        input=json.dumps([asdict(program) for program in tried]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    os.chown(scratch, 0, 0)
    assert done.returncode == 0, done.stderr
    outcomes = dict(zip([program.name for program in tried], json.loads(done.stdout), strict=True))
    assert outcomes.pop("honest") == [kind, True, "passed", ""]
    assert [name for name, outcome in outcomes.items() if outcome[1]] == []
    assert around.look() == before


@pytest.mark.real
@pytest.mark.parametrize(("kind", "seconds"), [("bubblewrap", 1), ("wasm", 3)])
def test_attacks_score_nothing_in_other_walls(kind: str, seconds: int, around: Surroundings) -> None:
    if kind in available().missing:
        pytest.skip(available().missing[kind])
    before = around.look()
    honest = Program("def solve():\n    return 42\n", TESTS, entry_point="solve", name="honest")
    tried = [honest, *programs(around.victim, around.port)]
    outcomes = Sandbox(kind, limits=replace(LIMITS, timeout_s=seconds, wall_s=6 * seconds), workers=4).run_tests(tried)
    passed = [program.name for program, outcome in zip(tried, outcomes, strict=True) if outcome.passed]
    assert passed == ["honest"]
    assert around.look() == before
