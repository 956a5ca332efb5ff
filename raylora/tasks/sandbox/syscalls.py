"""The system calls that a program may make: a list of what is allowed, compiled by libseccomp."""

from __future__ import annotations

import errno
import socket
import tempfile
from functools import cache
from typing import Any

from raylora.errors import UserError

REMEDY = "install libseccomp (Debian: libseccomp2) and `pip install pyseccomp`"

# Nothing here starts a process, opens a socket to anywhere, signals, traces, mounts, changes an owner, a mode or
# a time stamp: Landlock watches contents of files only, so what touches their metadata is left out.
_ALLOWED = """
read write readv writev pread64 pwrite64 preadv pwritev lseek close close_range dup dup2 dup3 pipe pipe2 open
openat stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents64 getcwd
chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 symlink symlinkat truncate
ftruncate fsync fdatasync fadvise64 sendfile copy_file_range umask flock poll ppoll select pselect6
epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 mmap mprotect munmap mremap madvise brk msync mincore
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause
setitimer getitimer alarm nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times futex
set_robust_list get_robust_list rseq set_tid_address membarrier sched_yield sched_getaffinity restart_syscall
exit exit_group gettid getpid getppid getpgid getpgrp getsid getuid geteuid getgid getegid getgroups getresuid
getresgid getrlimit getrusage sysinfo uname getrandom arch_prctl wait4 waitid shutdown getsockname getpeername
getsockopt recvfrom
"""
_CLONE_THREAD = 0x10000
_FIONREAD, _FIOCLEX, _FIONCLEX, _FIONBIO, _TCGETS, _TIOCGWINSZ = 0x541B, 0x5451, 0x5450, 0x5421, 0x5401, 0x5413


@cache
def compiled() -> bytes:
    """The filter as BPF for this architecture. Everything not allowed answers EPERM.

    Raises:
        UserError: no libseccomp, or no pyseccomp.
    """
    try:
        import pyseccomp as seccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError.at("sandbox", f"no system-call filter ({error}); {REMEDY}") from error
    arg = seccomp.Arg
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in _ALLOWED.split():
        _allow(seccomp, rules, name)
    # Threads, never processes; clone3 hides its flags behind a pointer, and without it libc falls back to clone.
    _allow(seccomp, rules, "clone", arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD))
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    # One's own limits only, and without capabilities these only go down.
    _allow(seccomp, rules, "prlimit64", arg(0, seccomp.EQ, 0))
    for request in (_FIONREAD, _FIOCLEX, _FIONCLEX, _FIONBIO, _TCGETS, _TIOCGWINSZ):
        _allow(seccomp, rules, "ioctl", arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
    # What asyncio wakes itself with: a connected pair. Neither end can be told another address.
    pair = (arg(0, seccomp.EQ, socket.AF_UNIX), arg(1, seccomp.MASKED_EQ, 0xF, socket.SOCK_STREAM))
    _allow(seccomp, rules, "socketpair", *pair)
    _allow(seccomp, rules, "sendto", arg(4, seccomp.EQ, 0))
    # fcntl can have signals sent to another process: only duplication, flags and locks (0 to 7) and
    # F_DUPFD_CLOEXEC (1030) pass.
    for command in (*range(8), 1030):
        _allow(seccomp, rules, "fcntl", arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, command))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _allow(seccomp: Any, rules: Any, name: str, *args: object) -> None:
    try:
        rules.add_rule(seccomp.ALLOW, name, *args)
    except OSError:
        # The architecture, or this libseccomp, has no call of that name: it stays refused.
        return
