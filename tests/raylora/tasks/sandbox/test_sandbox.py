from __future__ import annotations

import pytest

from raylora.tasks.sandbox import Limits, Outcome, Program, Sandbox, available, run_tests

pytestmark = pytest.mark.skipif(available().kind is None, reason="no sandbox can be had here")
LIMITS = Limits(timeout_s=2, wall_s=20)


@pytest.fixture(scope="module")
def box() -> Sandbox:
    return Sandbox(limits=LIMITS)


def run(box: Sandbox, code: str, tests: str, **more: str) -> Outcome:
    return box.run(Program(code, tests, **more))


def test_outcomes_come_in_the_order_of_the_programs(box: Sandbox) -> None:
    code = [f"def f():\n    return {n}\n" for n in range(6)]
    outcomes = box.run_tests([Program(text, "assert f() % 2 == 0") for text in code])
    assert [outcome.passed for outcome in outcomes] == [True, False] * 3


def test_programs_run_without_a_sandbox_of_ones_own() -> None:
    assert [outcome.kind for outcome in run_tests([Program("x = 1", "assert x == 1")])] == ["passed"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("def f(x): return x", "passed"),
        ("def f(x): return x + 1", "failed"),
        ("def f(x): raise KeyError(x)", "error"),
        ("def f(x) return x", "syntax"),
        ("def g(x): return x", "error"),
        ("import os; os._exit(0)", "exited"),
        ("def f(x): return bytearray(2**40)", "memory"),
        ("def f(x):\n    while True: pass", "timeout"),
        ("while True: print('x' * 1000)", "output"),
    ],
)
def test_the_kind_of_an_outcome(box: Sandbox, code: str, kind: str) -> None:
    assert run(box, code, "assert f(3) == 3").kind == kind


def test_a_text_alone_passes_where_it_ends(box: Sandbox) -> None:
    outcome = box.run("print('hello')")
    assert outcome.passed
    assert outcome.stdout == "hello\n"


def test_the_failed_assertion_is_told(box: Sandbox) -> None:
    assert run(box, "def f(x): return x", "assert f(1) == 1\nassert f(2) == 3").detail.endswith("assert f(2) == 3")


@pytest.mark.parametrize(
    "value",
    [
        "None", "True", "-(10**400)", "1.5", "float('inf')", "2j", "'\\ud800 é'", "b'\\x00\\xff'", "bytearray(b'a')",
        "[1, [2, (3, {4})]]", "{1: {'a': [None]}, (1, 2): frozenset({3})}", "range(1, 9, 2)", "slice(1, 2)", "...",
        "__import__('collections').Counter('abca')", "__import__('collections').deque([1, 2], 5)",
        "__import__('decimal').Decimal('1.10')", "__import__('fractions').Fraction(1, 3)",
        "__import__('datetime').date(2024, 2, 29)", "__import__('datetime').timedelta(1, 2, 3)",
        "__import__('collections').OrderedDict([(2, 1), (1, 2)])", "int", "ValueError",
    ],
)  # fmt: skip
def test_data_crosses_both_ways_unchanged(box: Sandbox, value: str) -> None:
    tests = f"x = {value}\nassert f(x) == x\nassert type(f(x)) is type(x)\nassert same(x)"
    code = f"def f(x): return x\ndef same(x):\n    y = {value}\n    return x == y and type(x) is type(y)"
    assert run(box, code, tests).passed


def test_a_named_tuple_equals_the_tuple_that_it_is(box: Sandbox) -> None:
    code = "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return [P(1, 2)]"
    assert run(box, code, "assert f() == [(1, 2)]").passed


def test_keys_of_a_dict_equal_a_set(box: Sandbox) -> None:
    assert run(box, "def f(): return {1: 2, 3: 4}.keys()", "assert f() == {1, 3}").passed


def test_an_iterator_can_be_gone_through(box: Sandbox) -> None:
    code = "def f(n):\n    for i in range(n):\n        yield i"
    assert run(
        box, code, "assert list(f(3)) == [0, 1, 2]\nassert next(f(2)) == 0\nassert sorted(f(2)) == [0, 1]"
    ).passed


def test_classes_of_the_program_can_be_used(box: Sandbox) -> None:
    code = (
        "class Node:\n    def __init__(self, value):\n        self.value, self.left = value, None\n"
        "    def total(self):\n        return self.value + (self.left.total() if self.left else 0)\n"
        "def depth(node): return 1 + depth(node.left) if node else 0\n"
    )
    tests = (
        "root = Node(1)\nroot.left = Node(2)\nassert depth(root) == 2\nassert root.left.value == 2\n"
        "assert root.total() == 3\nassert isinstance(root, Node)\nassert Node(1) == Node(1)\nassert Node(1) != Node(2)"
    )
    assert run(box, code, tests).passed


def test_classes_of_the_tests_can_be_used(box: Sandbox) -> None:
    code = "def total(node):\n    return node.value + total(node.next) if node else 0\n"
    tests = (
        "class Node:\n    def __init__(self, value, next=None):\n        self.value, self.next = value, next\n"
        "assert total(Node(1, Node(2))) == 3"
    )
    assert run(box, code, tests).passed


def test_functions_of_the_tests_can_be_called_and_no_more(box: Sandbox) -> None:
    honest = "def f(g, xs): return [g(x) for x in xs]"
    tests = "assert f(lambda x: x + 1, [1, 2]) == [2, 3]\nassert f(len, ['ab']) == [2]"
    assert run(box, honest, tests).passed
    spy = "def f(g, xs): return [g.__globals__ and x + 1 for x in xs]"
    assert "does not take getattr" in run(box, spy, tests).detail


def test_functions_of_the_program_can_be_answers(box: Sandbox) -> None:
    assert run(box, "def f(n): return lambda x: x + n", "assert f(2)(3) == 5").passed


def test_arguments_changed_in_place_are_seen(box: Sandbox) -> None:
    code = "def f(xs, d): xs.sort(); d['a'] = 1"
    assert run(box, code, "xs, d = [2, 1], {}\nf(xs, d)\nassert xs == [1, 2]\nassert d == {'a': 1}").passed


def test_exceptions_keep_their_built_in_type(box: Sandbox) -> None:
    code = "class Mine(ValueError): pass\ndef f(): raise Mine('no')"
    assert run(box, code, "try:\n    f()\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'").passed


def test_a_program_that_ends_is_no_exception_that_tests_expect(box: Sandbox) -> None:
    code = "import os\ndef f(): os._exit(0)"
    assert run(box, code, "try:\n    f()\nexcept Exception:\n    pass").kind == "exited"
    assert run(box, code, "try:\n    f()\nexcept BaseException:\n    pass").kind == "exited"


def test_a_helper_of_the_question_is_not_replaced_by_the_programs(box: Sandbox) -> None:
    prelude = "def check_sum(xs): return sum(xs) == 3"
    tests = "assert check_sum(f())"
    cheat = "def check_sum(xs): return True\ndef f(): return []"
    assert run(box, cheat, tests, prelude=prelude).kind == "failed"


def test_an_answer_that_claims_to_be_more_or_less_is_an_error(box: Sandbox) -> None:
    code = "class Less:\n    def __lt__(self, other): return True\ndef f(): return Less()"
    assert run(box, code, "assert f() < 3").kind == "error"


def test_asyncio_threads_and_the_library_work(box: Sandbox) -> None:
    code = (
        "import asyncio, concurrent.futures, decimal, hashlib, random, re, sqlite3, tempfile, zoneinfo\n"
        "async def later(x):\n    await asyncio.sleep(0)\n    return x\n"
        "def f(x):\n"
        "    with concurrent.futures.ThreadPoolExecutor(2) as pool:\n"
        "        x = pool.submit(lambda: x).result()\n"
        "    with tempfile.TemporaryFile() as file:\n"
        "        file.write(b'x')\n"
        "    sqlite3.connect(':memory:').execute('select 1')\n"
        "    return asyncio.run(later(x))\n"
    )
    outcome = run(box, code, "assert f(3) == 3")
    assert outcome.passed, outcome


def test_sets_of_texts_have_the_same_order_in_every_run(box: Sandbox) -> None:
    program = Program("print(list({'a', 'b', 'c', 'd', 'e', 'f'}))")
    assert len({outcome.stdout for outcome in box.run_tests([program] * 3)}) == 1


def test_processor_time_bounds_a_program(box: Sandbox) -> None:
    outcome = box.run(Program("while True: pass", "pass"), Limits(timeout_s=1, wall_s=60))
    assert outcome.kind == "timeout"
    assert outcome.seconds < 30


def test_tests_are_confined_as_the_program_is(box: Sandbox) -> None:
    assert "Operation not permitted" in run(box, "x = 1", "import socket\nsocket.socket()").detail
    assert "Permission denied" in run(box, "x = 1", "open('/etc/passwd')").detail


def test_names_that_nobody_asked_for_are_not_taken(box: Sandbox) -> None:
    # `len` of the program would make any answer three long; it is sent in place of the names that it has. The
    # descriptor has the number that it has in this process, which may hold many.
    forge = (
        "import json, os, struct\n"
        "body = json.dumps(['ready', ['dict', ['f', ['name', 'list']], ['len', ['name', 'bool']]], None]).encode()\n"
        "for fd in range(3, 4096):\n"
        "    try:\n        os.write(fd, struct.pack('>I', len(body)) + body)\n    except OSError:\n        pass\n"
    )
    wrong, right = [run(box, forge, f"assert len(f([1, 2, 3])) == {told}") for told in (True, 3)]
    assert wrong.kind == "failed", wrong
    assert right.passed, right


def test_a_program_that_stops_an_iteration_fails_the_tests_within_it(box: Sandbox) -> None:
    outcome = run(box, "def f(x): raise StopIteration", "assert all(map(lambda x: f(x) == x, [1, 2]))", entry_point="f")
    assert (outcome.kind, outcome.detail) == ("error", "StopIteration: ")


NUMPY = "import numpy as np\n"


@pytest.mark.skipif(available().kind == "wasm", reason="no numpy in WebAssembly")
@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("np.float32(3.5)", True),
        ("np.array([3.5])", True),
        ("None", False),
        ("np.nan", False),
        ("Address()", False),
    ],
)
def test_numpy_is_there_where_it_is_imported(box: Sandbox, answer: str, passes: bool) -> None:
    memory = "{'shape': (1,), 'typestr': '<f8', 'data': (id(0), True), 'version': 3}"
    fake = f"class Address:\n    __array_interface__ = {memory}\n"
    outcome = run(box, f"{NUMPY}{fake}def f(): return {answer}", f"{NUMPY}assert np.allclose(f(), 3.5)")
    assert outcome.passed == passes, outcome
    assert passes or outcome.kind in ("failed", "error")
