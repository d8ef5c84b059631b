"""Restricts itself with Landlock and becomes another program; see landlock(7) of the Linux manual.

Runs as a program of its own (``python -I -S landlock_run.py ORDER -- ARGV``), with the standard library alone. The
order is JSON: ``read`` and ``write``, folders and files. Once all of it holds, that is recorded on the status
descriptor; without the record nothing is known of the program.
"""

import ctypes
import json
import os
import stat
import struct
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""The same numbers on every architecture (linux/syscalls, since 5.13)."""
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPABILITIES = 64
VERSION_FLAG, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
ALL_BY_ABI = {3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""File rights that an ABI knows; from 3 on files cannot be truncated behind its back."""
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2
SCOPES_ABI = 6
LEAST_ABI = min(ALL_BY_ABI)
_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """A system call that fails with ``OSError``."""
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return result


def abi() -> int:
    """The version of Landlock that the kernel speaks; 0 if it has none."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG))))


def restrict(read: list[str], write: list[str]) -> None:
    """From now on: reading only below ``read``, everything below ``write``, nothing elsewhere."""
    known = abi()
    everything = next((rights for least, rights in sorted(ALL_BY_ABI.items(), reverse=True) if known >= least), 0)
    if not everything:
        raise OSError(0, f"landlock: ABI {known} is too old, {LEAST_ABI} is needed")
    scopes = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if known >= SCOPES_ABI else 0
    attributes = struct.pack("=QQQ", everything, 0, scopes)[: 24 if known >= SCOPES_ABI else 8]
    rules = syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for paths, rights in ((read, EXECUTE | READ_FILE | READ_DIR), (write, everything)):
        for path in paths:
            allow(rules, path, rights)
    for capability in range(CAPABILITIES):
        # Root's capabilities reach around: CAP_PERFMON reads other processes. Others have none to give up.
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    syscall(RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def allow(rules: int, path: str, rights: int) -> None:
    """One rule; for what is no folder, only the rights that files have."""
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not stat.S_ISDIR(os.fstat(folder).st_mode):
        rights &= ON_FILES
    beneath = struct.pack("=Qi", rights, folder)
    syscall(ADD_RULE, ctypes.c_int(rules), ctypes.c_int(PATH_BENEATH), beneath, ctypes.c_uint32(0))
    os.close(folder)


def main() -> None:
    """Restrict, record, become the program."""
    order, _, *argv = sys.argv[1:]
    wanted = json.loads(order)
    restrict(wanted["read"], wanted["write"])
    os.write(wanted["status"], b'{"entered": true}\n')
    os.close(wanted["status"])
    os.execvp(argv[0], argv)  # noqa: S606 - what it is for


if __name__ == "__main__":
    main()
