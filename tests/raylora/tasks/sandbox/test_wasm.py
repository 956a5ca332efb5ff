from __future__ import annotations

import pytest

from raylora.tasks.sandbox import Limits, Program, Sandbox, kinds

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(kinds.lacks("wasm") is not None, reason=str(kinds.lacks("wasm"))),
]


@pytest.fixture(scope="module")
def box() -> Sandbox:
    return Sandbox("wasm", limits=Limits(timeout_s=10, wall_s=60))


def test_the_verdict_is_the_tests_own(box: Sandbox) -> None:
    code = ["def f(x): return x", "def f(x): return x + 1", "import os; os._exit(0)", "import sys; sys.exit(0)"]
    outcomes = box.run_tests([Program(text, "assert f(3) == 3") for text in code])
    assert [outcome.kind for outcome in outcomes] == ["passed", "failed", "exited", "error"]


def test_what_a_program_prints_does_not_disturb_its_answers(box: Sandbox) -> None:
    outcome = box.run(Program("print('hello')\ndef f():\n    print('there')\n    return 1", "assert f() == 1"))
    assert outcome.passed
    assert outcome.stdout == "hello\nthere\n"


def test_the_machine_has_no_names_there(box: Sandbox) -> None:
    code = "import os\nSEEN = [os.path.exists(p) for p in ('/etc/passwd', '/proc', '/home', '/tmp')]"
    assert box.run(Program(code, "assert not any(SEEN)")).passed


def test_files_can_be_written_in_the_scratch_folder_and_are_gone(box: Sandbox) -> None:
    code = "with open('x', 'w') as file: file.write('1')\nwith open('x') as file: X = file.read()"
    tests = "assert X == '1'\nimport os\nassert not os.path.exists('x')"
    assert box.run(Program(code, tests)).passed


def test_memory_and_sleep_are_bounded(box: Sandbox) -> None:
    assert box.run(Program("def f(): return bytearray(2**30)", "f()")).kind == "memory"
    sleeper = Program("import time\ndef f(): time.sleep(10**6)", "f()")
    assert box.run(sleeper, Limits(timeout_s=10, wall_s=4)).kind == "timeout"
