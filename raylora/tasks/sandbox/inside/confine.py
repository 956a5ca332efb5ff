"""The walls, put up by the process around itself before anything untrusted is read. Linux, by ctypes.

Whatever cannot be put up raises: the process ends before it has seen the program.
"""

from __future__ import annotations

import base64
import ctypes
import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 22, 38, 4
_SECCOMP_MODE_FILTER = 2
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
# Landlock's system calls have one number on every architecture.
_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = 1, 2, 4, 8, 16, 32
_MAKE_DIR, _MAKE_REG, _MAKE_SYM, _REFER, _TRUNCATE = 128, 256, 4096, 8192, 16384
_SCRATCH = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttr(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class _SockFprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def landlock_abi() -> int:
    """Version of Landlock that the kernel has, 0 without."""
    return max(0, _libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def confine(policy: dict[str, Any]) -> None:
    """Put up every wall of `policy`: `limits`, `landlock` (or None), `seccomp` (BPF in base64, or None)."""
    for name, (soft, hard) in policy["limits"].items():
        limit(name, soft, hard)
    die_with_parent()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    _drop_capabilities()
    if policy["landlock"] is not None:
        _landlock(policy["landlock"])
    if policy["seccomp"] is not None:
        _seccomp(base64.b64decode(policy["seccomp"]))


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def limit(name: str, soft: int, hard: int) -> None:
    """Set the resource limit called `name`, such as `RLIMIT_CPU`, or the lower one that is in force already."""
    kind = getattr(resource, name)
    # An unprivileged process cannot raise a limit that its surroundings set lower already.
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), f"prctl {option}")


def _drop_capabilities() -> None:
    # Version 3 of the header, this process; three sets of 64 bits, all of them empty.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    number = _SYS_CAPSET.get(os.uname().machine)
    if number is None:
        raise OSError(f"capset: no number known on {os.uname().machine}")
    _check(_libc.syscall(number, header, (ctypes.c_uint32 * 6)()), "capset")


def _landlock(rules: dict[str, Any]) -> None:
    abi = landlock_abi()
    if abi < 1:
        raise OSError("landlock: the kernel has none")
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attr = _RulesetAttr(handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _check(_libc.syscall(_SYS_CREATE_RULESET, ctypes.byref(attr), ctypes.c_size_t(size), 0), "landlock")
    granted = [(path, _READ_FILE) for path in rules["files"]]
    granted += [(path, _READ_DIR) for path in rules["folders"]]
    granted += [(path, _READ_FILE | _READ_DIR) for path in rules["trees"]]
    granted += [("/dev/null", _READ_FILE | _WRITE_FILE), (rules["scratch"], (_SCRATCH | _REFER | _TRUNCATE))]
    for path, access in granted:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rule = _PathBeneath(access & handled, fd)
        _check(_libc.syscall(_SYS_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0), f"landlock: {path}")
        os.close(fd)
    _check(_libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)


def _seccomp(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // 8, ctypes.addressof(code))
    result = _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(fprog), 0, 0)
    _check(result, "seccomp")
