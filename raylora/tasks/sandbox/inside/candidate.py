"""The process of the program under test: it defines what the program defines, then answers calls.

It is given the program and never the tests: all that it learns of them are the arguments of each call.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

from raylora.tasks.sandbox.inside.wire import Peer, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MODULE = "solution"
_PLAIN: dict[str, Callable[[Any], Any]] = {"len": len, "bool": bool, "str": str, "repr": repr}


def serve(operation: str, target: Any, parts: list[Any]) -> Any:
    """Do what the tests ask of an object of the program."""
    match operation:
        case "call":
            return target(*parts[0], **parts[1])
        case "getattr":
            return getattr(target, parts[0])
        case "setattr":
            return setattr(target, parts[0], parts[1])
        case "iter":
            return iter(target)
        case "next":
            return _next(target)
        case "getitem":
            return target[parts[0]]
        case "setitem":
            target[parts[0]] = parts[1]
            return None
        case "isinstance":
            return isinstance(parts[0], target)
        case "state":
            return _state(target)
        case "len" | "bool" | "str" | "repr":
            return _PLAIN[operation](target)
    raise ValueError(f"no such operation: {operation}")


def _next(target: Any) -> tuple[bool, Any]:
    try:
        return True, next(target)
    except StopIteration:
        return False, None


def _state(target: Any) -> Any:
    attributes = getattr(target, "__dict__", None)
    if not isinstance(attributes, dict):
        return None
    return [type(target).__module__, type(target).__qualname__, dict(attributes)]


def run(payload: dict[str, Any], read_fd: int, write_fd: int) -> None:
    """Execute the program as a module, tell its names, answer until the tests are gone."""
    peer = Peer(Wire(read_fd, write_fd), serve)
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    try:
        exec(compile(payload["code"], "program", "exec", dont_inherit=True), module.__dict__)
    except SyntaxError as error:
        peer.wire.send(["failed", "syntax", f"SyntaxError: {error}"])
        return
    except MemoryError:
        peer.wire.send(["failed", "memory", "MemoryError"])
        return
    except BaseException as error:
        peer.wire.send(["failed", "error", f"{type(error).__name__}: {str(error)[:500]}"])
        return
    wanted = [name for name in payload["names"] if name in module.__dict__]
    peer.wire.send(["ready", peer.codec.encode({name: module.__dict__[name] for name in wanted}), None])
    peer.serve_until_gone()
