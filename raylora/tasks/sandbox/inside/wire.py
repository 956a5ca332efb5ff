"""Values and calls between the process of the tests and the process of the program under test.

Only plain data crosses by value, rebuilt as exact built-in types on the other side: what claims to equal
everything arrives as a reference, and a reference equals no data. Everything else stays where it was made and is
called from afar. Frames are a 4-byte big-endian length and JSON; nothing is unpickled.
"""

from __future__ import annotations

import builtins
import json
import os
import struct
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FRAME_BYTES = 64 * 2**20
_JSON_INT = 2**53
# Types whose values are rebuilt from the arguments that their reduced form names. They are looked up on the
# sending side only where their module is loaded, so that nothing is imported for their sake.
_KNOWN = {
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque"),
    "datetime": ("date", "datetime", "time", "timedelta"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
}


class WireError(Exception):
    """What came over the wire is no frame, or no value, of this protocol."""


class Gone(BaseException):
    """The other process is gone. No `except Exception` of a test catches it."""


class RemoteError(Exception):
    """An exception of the other process that is no built-in one; its text begins with the type's name."""


class Wire:
    """Frames over a pair of file descriptors, blocking."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd

    def send(self, frame: object) -> None:
        """Raises `WireError` for a frame over 64 MiB, `Gone` where nobody reads any more."""
        body = json.dumps(frame, separators=(",", ":")).encode()
        if len(body) > MAX_FRAME_BYTES:
            raise WireError(f"a value of {len(body)} bytes does not cross; the limit is {MAX_FRAME_BYTES}")
        view = memoryview(struct.pack(">I", len(body)) + body)
        try:
            while view:
                view = view[os.write(self._write_fd, view) :]
        except OSError:
            raise Gone from None

    def receive(self) -> Any:
        """Raises `WireError` for what is no frame, `Gone` at the end of the stream."""
        (size,) = struct.unpack(">I", self._exactly(4))
        if size > MAX_FRAME_BYTES:
            raise WireError(f"a frame of {size} bytes; the limit is {MAX_FRAME_BYTES}")
        try:
            return json.loads(self._exactly(size))
        except (ValueError, RecursionError):
            raise WireError("a frame that is not JSON") from None

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            try:
                part = os.read(self._read_fd, min(count, 2**20))
            except OSError:
                raise Gone from None
            if not part:
                raise Gone
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class Codec:
    """Python values to JSON and back, with a table of the objects that stay here.

    Data is tagged: `["list", ...]`, `["dict", [key, value], ...]`; `["there", id]` names an object of the sender,
    `["yours", id]` one of the receiver. `remote(id)` makes the stand-in for an object of the other side.
    """

    def __init__(self, remote: Callable[[int], Any]) -> None:
        self._make_remote = remote
        self._kept: dict[int, object] = {}
        self._remotes: dict[int, Any] = {}

    def kept(self, number: int) -> object:
        """The object of this side that `number` names; `WireError` where there is none."""
        try:
            return self._kept[number]
        except (KeyError, TypeError):
            raise WireError("a reference to nothing") from None

    def encode(self, value: object, depth: int = 0) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is Remote:
            return ["yours", object.__getattribute__(value, "_number")]
        if depth > 200:
            raise WireError("a value nested more than 200 deep does not cross")
        plain = self._plain(value, kind, depth + 1)
        if plain is not None:
            return plain
        number = id(value)
        self._kept[number] = value
        return ["there", number]

    def _plain(self, value: Any, kind: type, depth: int) -> Any:
        if issubclass(kind, int):
            value = int.__index__(value)
            return value if -_JSON_INT < value < _JSON_INT else ["int", hex(value)]
        known = self._known(value, kind, depth)
        if known is not None:
            return known
        if issubclass(kind, str):
            return str.__str__(value)
        if issubclass(kind, float):
            return float.__pos__(value)
        for base in (list, tuple, set, frozenset):
            if issubclass(kind, base):
                return [base.__name__, *[self.encode(item, depth) for item in base.__iter__(value)]]
        if kind is type({}.keys()) or kind is type({}.items()):
            return ["set", *[self.encode(item, depth) for item in value]]
        if issubclass(kind, dict):
            return ["dict", *self._pairs(value, depth)]
        if kind in (bytes, bytearray):
            return [kind.__name__, value.hex()]
        if kind is complex:
            return ["complex", value.real, value.imag]
        if kind.__module__ == "numpy" and hasattr(value, "item") and kind.__name__ != "ndarray":
            return self.encode(value.item(), depth)
        if kind in (range, slice):
            return [kind.__name__, *[self.encode(part, depth) for part in (value.start, value.stop, value.step)]]
        name = str(getattr(value, "__name__", ""))
        if kind is type and vars(builtins).get(name) is value:
            return ["name", name]
        if value is Ellipsis or value is NotImplemented:
            return ["name", repr(value)]
        return None

    def _pairs(self, value: dict[Any, Any], depth: int) -> list[Any]:
        return [[self.encode(k, depth), self.encode(v, depth)] for k, v in dict.items(value)]

    def _known(self, value: Any, kind: type, depth: int) -> Any:
        module, name = kind.__module__, kind.__name__
        if name not in _KNOWN.get(module, ()):
            return None
        if name in ("Counter", "OrderedDict"):
            parts: list[Any] = [dict(value)]
        elif name == "defaultdict":
            parts = [value.default_factory, dict(value)]
        elif name == "deque":
            parts = [list(value), value.maxlen]
        elif name == "timedelta":
            parts = [value.days, value.seconds, value.microseconds]
        elif module == "datetime":
            parts = [value.isoformat()]
        else:
            parts = [str(value)]
        return ["known", module, name, *[self.encode(part, depth) for part in parts]]

    def decode(self, form: Any) -> Any:
        """Raises `WireError` for what `encode` cannot have made."""
        if form is None or isinstance(form, bool | int | float | str):
            return form
        try:
            return self._decode(form[0], form[1:])
        except (WireError, MemoryError):
            raise
        except Exception as error:
            raise WireError(f"a value that is none: {type(error).__name__}") from None

    def _decode(self, tag: str, parts: list[Any]) -> Any:
        if tag == "yours":
            return self.kept(parts[0])
        if tag == "there":
            number = int(parts[0])
            if number not in self._remotes:
                self._remotes[number] = self._make_remote(number)
            return self._remotes[number]
        if tag == "int":
            return int(parts[0], 16)
        if tag in ("list", "tuple", "set", "frozenset"):
            return getattr(builtins, tag)([self.decode(part) for part in parts])
        if tag == "dict":
            return {self.decode(key): self.decode(value) for key, value in parts}
        if tag in ("bytes", "bytearray"):
            return getattr(builtins, tag).fromhex(parts[0])
        if tag in ("complex", "range", "slice"):
            parts = [self.decode(part) for part in parts]
            return range(*parts) if tag == "range" else slice(*parts) if tag == "slice" else complex(*parts)
        if tag == "name":
            named = getattr(builtins, parts[0])
            # A built-in function such as exec is no data, and no encoder sends it.
            if isinstance(named, type) or named is Ellipsis or named is NotImplemented:
                return named
        if tag == "known" and parts[1] in _KNOWN[parts[0]]:
            return _rebuild(parts[0], parts[1], [self.decode(part) for part in parts[2:]])
        raise WireError(f"a value of no known kind: {tag!r}")


def _rebuild(module: str, name: str, parts: list[Any]) -> Any:
    kind = getattr(__import__(module), name)
    return kind.fromisoformat(*parts) if module == "datetime" and name != "timedelta" else kind(*parts)


class Remote:
    """Stands for an object of the other process. It equals itself, and no data."""

    __slots__ = ("_number", "_peer")

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        # What numpy asks for would be believed to the letter, addresses of memory included.
        if name.startswith("__array"):
            raise AttributeError(name)
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: object) -> None:
        _ask(self, "setattr", name, value)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        peer: Peer = object.__getattribute__(self, "_peer")
        return peer.call(object.__getattribute__(self, "_number"), args, kwargs)

    def __iter__(self) -> Iterator[Any]:
        iterator = _ask(self, "iter")
        while True:
            more, item = _ask(iterator, "next")
            if not more:
                return
            yield item

    def __next__(self) -> Any:
        more, item = _ask(self, "next")
        if not more:
            raise StopIteration
        return item

    def __len__(self) -> int:
        return int(_ask(self, "len"))

    def __getitem__(self, key: object) -> Any:
        return _ask(self, "getitem", key)

    def __setitem__(self, key: object, value: object) -> None:
        _ask(self, "setitem", key, value)

    def __contains__(self, item: object) -> bool:
        return any(item == mine for mine in self)

    def __bool__(self) -> bool:
        return bool(_ask(self, "bool"))

    def __str__(self) -> str:
        return str(_ask(self, "str"))

    def __repr__(self) -> str:
        return str(_ask(self, "repr"))

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Remote) and bool(_ask(self, "isinstance", instance))

    def __eq__(self, other: object) -> bool:
        """The same object, or two of one class whose attributes are equal as data."""
        if self is other:
            return True
        if not isinstance(other, Remote):
            return False
        mine, theirs = _ask(self, "state"), _ask(other, "state")
        return mine is not None and mine == theirs

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_number"))


def _ask(remote: Any, operation: str, *parts: object) -> Any:
    if not isinstance(remote, Remote):
        raise WireError("a reference was expected")
    peer: Peer = object.__getattribute__(remote, "_peer")
    return peer.ask(operation, object.__getattribute__(remote, "_number"), *parts)


class Peer:
    """One end of the conversation. While it waits for an answer it serves what the other end asks meanwhile.

    Args:
        wire: the frames.
        serve: does `(operation, object, parts)` on an object of this side; what it refuses it raises.
    """

    def __init__(self, wire: Wire, serve: Callable[[str, Any, list[Any]], Any]) -> None:
        self.wire = wire
        self.codec = Codec(lambda number: Remote(self, number))
        self._serve = serve
        self.gone = False

    def ask(self, operation: str, number: int, *parts: object) -> Any:
        """The answer, decoded. Raises what the other side raised, as a built-in exception or `RemoteError`."""
        self._send(["ask", operation, number, [self.codec.encode(part) for part in parts]])
        return self.codec.decode(self._answer()[0])

    def call(self, number: int, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call from afar; lists, sets and dicts among the arguments come back as the callee left them."""
        self._send(["ask", "call", number, [self.codec.encode(args), self.codec.encode(kwargs)]])
        result, changed = self._answer()
        given = [*args, *kwargs.values()]
        for index, form in changed:
            _refill(given[index], self.codec.decode(form))
        return self.codec.decode(result)

    def serve_until_gone(self) -> None:
        try:
            while True:
                self._do(self._receive())
        except Gone:
            return

    def _send(self, frame: object) -> None:
        if self.gone:
            raise Gone
        try:
            self.wire.send(frame)
        except Gone:
            self.gone = True
            raise

    def _receive(self) -> list[Any]:
        if self.gone:
            raise Gone
        try:
            frame = self.wire.receive()
        except Gone:
            self.gone = True
            raise
        if not isinstance(frame, list) or len(frame) < 3:
            raise WireError("a frame of no known form")
        return frame

    def _answer(self) -> tuple[Any, list[tuple[int, Any]]]:
        while True:
            frame = self._receive()
            if frame[0] == "ask":
                self._do(frame)
            elif frame[0] == "done":
                return frame[1], frame[2]
            elif frame[0] == "raised":
                raise _exception(frame[1], str(frame[2]))
            else:
                raise WireError("a frame of no known form")

    def _do(self, frame: list[Any]) -> None:
        try:
            _, operation, number, forms = frame
            target = self.codec.kept(number)
            parts = [self.codec.decode(form) for form in forms]
            if operation != "call":
                self._send(["done", self.codec.encode(self._serve(operation, target, parts)), []])
                return
            given = [*parts[0], *parts[1].values()]
            before = [self.codec.encode(value) for value in given]
            result = self._serve("call", target, parts)
            after = [self.codec.encode(value) for value in given]
            changed = [(i, form) for i, form in enumerate(after) if form != before[i]]
            self._send(["done", self.codec.encode(result), changed])
        except Gone:
            raise
        except BaseException as error:
            self._send(["raised", [kind.__name__ for kind in type(error).__mro__], _text(error)])


def _text(error: BaseException) -> str:
    try:
        return str(error)[:1000]
    except Exception:
        return ""


def _exception(names: Any, text: str) -> Exception:
    # The end of an iteration crosses as an answer; raised by a call, it would end a loop of the tests unnoticed.
    ends = isinstance(names, list) and "StopIteration" in names
    for name in names if isinstance(names, list) and not ends else []:
        kind = getattr(builtins, name, None) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                return kind(text)
            except TypeError:
                break
    return RemoteError(f"{names[0] if isinstance(names, list) and names else 'error'}: {text}")


def _refill(target: Any, values: Any) -> None:
    if type(target) is not type(values):
        return
    if isinstance(target, list | bytearray):
        target[:] = values
    elif isinstance(target, set | dict):
        target.clear()
        target.update(values)
