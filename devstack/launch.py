"""Start a program that dies with its parent. Run as a script, never imported.

`python -I -S launch.py PARENT_PID SIGNAL UID GID PROGRAM [ARGUMENT...]`

A tiny program of its own instead of a `preexec_fn`: Python code between fork and exec can deadlock in
a process with threads, and the stack's owner has many. It drops to UID/GID (-1: stays), asks the
kernel for SIGNAL when the parent goes (Linux), and becomes PROGRAM.
"""

import ctypes
import os
import sys

# loaded while we may still read the standard library: it can lie in a home the other user cannot enter
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int, signal_number: int) -> None:
    """Must come after the change of user: the kernel forgets the wish when credentials change."""
    if not sys.platform.startswith("linux"):
        return
    if LIBC.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        # the parent died before we asked: the signal will never come
        sys.exit(1)


def main() -> None:
    parent_pid, signal_number, uid, gid = (int(value) for value in sys.argv[1:5])
    argv = sys.argv[5:]
    if gid >= 0:
        os.setgroups([])
        os.setgid(gid)
    if uid >= 0:
        os.setuid(uid)
    die_with_parent(parent_pid, signal_number)
    os.execvp(argv[0], argv)  # noqa: S606 - becoming the program is the point; no shell is involved


if __name__ == "__main__":
    main()
