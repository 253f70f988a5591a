"""Locks between processes, also on file systems that have none."""

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from infty.base.errors import InftyError, one_line

PATIENCE = 3600  # seconds to wait for another process that makes the same thing
REFUSALS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of a file system without locks
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)  # of a folder in which this user may not write
MARK = ".held"  # ends the name of the file that takes a lock's place


class HeldError(Exception):
    """Another process holds a lock; the message says which one and what to do if it has ended, if that is known."""


def take_lock(path: Path, timeout: float, *, tell: bool = True) -> AbstractContextManager[object]:
    """Take a lock, until the context that is returned ends; the system frees it however this process ends.

    If the file system has no locks, a file that only one process can make takes its place. tell: warn of that.

    Raises:
        HeldError: Another process holds it for longer than `timeout` seconds.
        OSError: The lock can't be made here.
    """
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            return lock.acquire(timeout=timeout)
        except OSError as fault:
            if fault.errno not in REFUSALS:
                fault.filename = str(path)
                raise
            # It holds this process's number and its machine's name, so that one that was killed here is noticed.
            lock = SoftFileLock(path.with_name(f"{path.name}{MARK}"))
            held = lock.acquire(timeout=timeout)
            if tell:
                told = f"{path.parent} is on a file system without locks: {lock.lock_file} takes the lock's place"
                warnings.warn(f"{told}, and is to be removed if this process is killed", stacklevel=3)
            return held
    except Timeout:
        raise HeldError(_name_holder(Path(lock.lock_file))) from None


def is_held(path: Path) -> bool | None:
    """Tell if a process holds a lock; None if that can't be found out, as in another user's folder."""
    try:
        if not path.exists():
            return False
        with take_lock(path, 0, tell=False):
            return False
    except HeldError:
        return True
    except OSError:
        return None


@contextlib.contextmanager
def hold_lock(lock: Path, work: str) -> Iterator[None]:
    """Hold a lock within the block; InftyError if another process holds it for an hour. work: as "fetches wikitext"."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = take_lock(lock, 1)
    except HeldError as fault:
        warnings.warn(f"waiting for another process that {work}{fault}", stacklevel=3)
        try:
            held = take_lock(lock, PATIENCE)
        except HeldError:
            raise InftyError(f"another process that {work} has been at it for too long; end it, or wait") from None
    with held:
        yield


def _name_holder(file: Path) -> str:
    """Say who made the file that takes a lock's place, and what to do if that process has ended; "" for a real lock."""
    if file.suffix != MARK:
        return ""
    try:
        number, host, *_ = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        number, host = "unknown", "unknown"
    return one_line(f" (process {number} on {host}; if it has ended, remove {os.path.abspath(file)})", 1000)
