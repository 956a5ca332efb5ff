"""What goes into the sandbox, the bounds it runs within, and what comes out."""

from __future__ import annotations

import ast
import builtins
import sys
import threading
from dataclasses import dataclass

# Python 3.11 counts the depth of the trees that it makes once for all threads: two at a time may fail.
_PARSING = threading.Lock()


def parse(source: str) -> ast.Module:
    """`ast.parse`, in one thread at a time. Raises what that raises for a source that is no program."""
    with _PARSING:
        return ast.parse(source)


def imported(source: str) -> set[str]:
    """The top-level names of the modules that a source imports anywhere; empty where it does not parse."""
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@dataclass(frozen=True)
class Program:
    """Code to run and the tests that judge it.

    Attributes:
        code: the untrusted source; it runs in a process of its own and never sees the tests.
        tests: source whose assertions decide; names that it uses and does not define are the program's. Empty:
            the program passes where it runs to its end, which a program can claim without doing anything.
        prelude: trusted definitions that the tests use (helpers of the question); they are not replaced by the
            program's definitions of the same name, `entry_point` excepted.
        entry_point: the function under test, where the tests' form names one.
        name: what messages call it, such as `HumanEval/0`.
    """

    code: str
    tests: str = ""
    prelude: str = ""
    entry_point: str | None = None
    name: str = ""

    def wanted(self) -> tuple[list[str], list[str]]:
        """Names that the tests take from the program, and modules that they take from the library; sorted.

        Built-in names stay Python's own unless one is the entry point, so that a program cannot bring its own
        `set` or `abs` to the comparison; so do modules of the standard library.
        """
        try:
            tree = parse(self.tests)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            # The tests' process says what is wrong with them.
            return [], []
        nodes = list(ast.walk(tree))
        bases = {
            node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        loaded = {node.id for node in nodes if isinstance(node, ast.Name)} - {self.entry_point}
        modules = loaded & bases & set(sys.stdlib_module_names)
        names = {name for name in loaded - modules if not hasattr(builtins, name)}
        if self.entry_point:
            names.add(self.entry_point)
        return sorted(names), sorted(modules)


@dataclass(frozen=True)
class Limits:
    """Bounds on one program, each on its process and on that of its tests.

    Attributes:
        timeout_s: processor time, in seconds. A busy machine does not make a right program slow.
        wall_s: time on the clock, in seconds; None is five times `timeout_s` and 5 more.
        memory_mb: address space, in MiB, the interpreter's 30 included.
        output_kb: what may be printed, in KiB, before the program is ended.
        disk_mb: what the scratch folder may hold, in MiB; each file a quarter of it.
        files: how many files and folders the scratch folder may hold.
    """

    timeout_s: float = 10.0
    wall_s: float | None = None
    memory_mb: int = 512
    output_kb: int = 1024
    disk_mb: int = 32
    files: int = 1000

    @property
    def deadline_s(self) -> float:
        """When a program is ended by the clock, in seconds from its start."""
        return 5 * self.timeout_s + 5 if self.wall_s is None else self.wall_s


@dataclass(frozen=True)
class Outcome:
    """What became of a program.

    Attributes:
        passed: every assertion held.
        kind: `passed`, `failed` (an assertion), `error` (an exception), `syntax`, `exited` (its process ended
            before the tests did), `timeout`, `memory`, `output`, `disk`.
        detail: the assertion or the exception, one line; empty where it passed.
        stdout: the last 4 KiB of what the program printed, both streams.
        seconds: on the clock.
    """

    passed: bool
    kind: str
    detail: str
    stdout: str
    seconds: float
