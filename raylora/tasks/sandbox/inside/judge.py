"""The process of the tests: it alone knows them, and it alone gives the verdict."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

from raylora.tasks.sandbox.inside.wire import Gone, Peer, RemoteError, Wire, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MODULE = "tests"
_PLAIN: dict[str, Callable[[Any], Any]] = {"len": len, "bool": bool, "str": str, "repr": repr}


def serve(operation: str, target: Any, parts: list[Any]) -> Any:
    """Do what the program asks of an object that the tests handed to it, and no more than Python would let it.

    Functions can be called and iterators advanced; attributes are those of the tests' own classes, without
    leading underscore: nothing leads from there to a frame, a module or the assertions.
    """
    own = getattr(type(target), "__module__", None) == MODULE
    match operation:
        case "call" if callable(target):
            return target(*parts[0], **parts[1])
        case "iter":
            return iter(target)
        case "next":
            try:
                return True, next(target)
            except StopIteration:
                return False, None
        case "getattr" if own and not parts[0].startswith("_"):
            return getattr(target, parts[0])
        case "setattr" if own and not parts[0].startswith("_"):
            return setattr(target, parts[0], parts[1])
        case "len" | "str" | "repr" | "bool" if own:
            return _PLAIN[operation](target)
    raise TypeError(f"an object of the tests does not take {operation}")


def run(payload: dict[str, Any], read_fd: int, write_fd: int, verdict_fd: int) -> None:
    """Judge, then say `[kind, detail]` on the descriptor that only the supervisor reads."""
    peer = Peer(Wire(read_fd, write_fd), serve)
    try:
        kind, detail = judge(payload, peer)
    except Gone:
        kind, detail = "exited", "the program's process ended before the tests did"
    Wire(-1, verdict_fd).send([kind, detail[:2000]])


def judge(payload: dict[str, Any], peer: Peer) -> tuple[str, str]:
    """`("passed", "")`, or the kind of failure and what it says."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    names = module.__dict__
    try:
        exec(compile(payload["prelude"], "prelude", "exec", dont_inherit=True), names)
        given = _definitions(peer)
        if isinstance(given, tuple):
            return given
        # The other side may send any name: only what the tests ask for, and what they do not have, is taken.
        taken = set(payload["names"]) - (set(names) - {payload["entry_point"]})
        names.update({name: value for name, value in given.items() if name in taken})
        # Modules that the tests name are this process's own, not what the program calls so.
        names.update({name: __import__(name) for name in payload["modules"]})
        exec(compile(payload["tests"], "tests", "exec", dont_inherit=True), names)
    except AssertionError as error:
        return "failed", f"AssertionError: {_where(error, payload)}"
    except MemoryError:
        return "memory", "MemoryError"
    except WireError as error:
        return "error", str(error)
    except RemoteError as error:
        return "error", str(error)
    except Gone:
        raise
    except BaseException as error:
        return "error", f"{type(error).__name__}: {str(error)[:500]}"
    return ("exited", "the program's process ended before the tests did") if peer.gone else ("passed", "")


def _definitions(peer: Peer) -> dict[str, Any] | tuple[str, str]:
    frame = peer.wire.receive()
    if isinstance(frame, list) and len(frame) == 3 and frame[0] == "failed":
        kind = frame[1] if frame[1] in ("syntax", "memory", "error") else "error"
        return kind, str(frame[2])
    if not isinstance(frame, list) or len(frame) != 3 or frame[0] != "ready":
        raise WireError("a frame of no known form")
    given = peer.codec.decode(frame[1])
    if not isinstance(given, dict):
        raise WireError("a frame of no known form")
    return given


def _where(error: AssertionError, payload: dict[str, Any]) -> str:
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "tests":
            line = trace.tb_lineno
        trace = trace.tb_next
    lines = payload["tests"].splitlines()
    return lines[line - 1].strip()[:500] if 0 < line <= len(lines) else str(error)[:500]
