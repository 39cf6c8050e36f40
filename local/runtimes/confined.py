"""Runs a command that may write to the temporary folder alone: python local/runtimes/confined.py COMMAND…

A deployed function finds its package read-only and has nothing but /tmp. The kernel's Landlock sees to it, also for
root; on a kernel without it the command runs as it is, and standard error says so.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from typing import Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NO_NEW_PRIVILEGES: Final = 38
_BENEATH: Final = 1
#: kinds of writing, by the version of the interface that knows them
_WRITES: Final = 0b1_1111_1111_0010  # files, and making or removing anything in a folder
_SINCE: Final = {2: 1 << 13, 3: 1 << 14}  # renaming across folders, truncating


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine(folders: list[str]) -> bool:
    """From now on this process and its children write below `folders` only; False where the kernel cannot do that."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, 0, 1)
    if version < 1:
        return False
    handled = _WRITES | sum(bit for since, bit in _SINCE.items() if version >= since)
    rules = libc.syscall(_CREATE, ctypes.byref(ctypes.c_uint64(handled)), 8, 0)
    if rules < 0:
        return False
    for folder in [*folders, "/dev", "/proc"]:
        parent = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        rule = _Beneath(handled, parent)
        if libc.syscall(_ADD, rules, _BENEATH, ctypes.byref(rule), 0) < 0:
            return False
        os.close(parent)
    return libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and libc.syscall(_RESTRICT, rules, 0) == 0


def main() -> None:
    """Confine this process, then become the command."""
    if not confine([tempfile.gettempdir()]):
        print("this kernel has no Landlock: functions may write anywhere", file=sys.stderr)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
