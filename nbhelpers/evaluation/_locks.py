"""A lock on an open file, of the kind that the system has: it ends with the process."""

import os

BEYOND = 2**30  # a byte that no lock's file has; on Windows a locked one can't be read


def take(descriptor: int, *, shared: bool = False) -> bool:
    """Locks an open file without waiting; closing it lets go.

    Args:
        descriptor: Of the file, opened for reading and writing, or for reading where `shared`.
        shared: Whether others may hold a shared lock at the same time. Windows has none, so there
            the lock is the caller's alone.

    Returns:
        Whether it was taken; False where another process holds it.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return _take_on_windows(descriptor)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_on_windows(descriptor: int) -> bool:
    """Returns the lock of one byte behind the file's end, which leaves what is in it readable."""
    import msvcrt

    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, BEYOND, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except PermissionError:
        return False
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)
    return True
