"""Files and folders that no other user of the machine may read, whatever the umask and whatever was there before."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def create(path: Path, text: str = "") -> None:
    """Make a file with this text; nobody else can read it at any time. What fails leaves no file.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written.
    """
    file = begin(path)
    try:
        with file:
            file.write(text)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def begin(path: Path) -> TextIO:
    """A new file as `create` makes it, still empty and open; a caller that cannot fill it may have to delete it.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    # An unusual umask removes our own rights, too.
    os.fchmod(descriptor, 0o600)
    return open(descriptor, "w", encoding="utf-8")


def create_folder(path: Path) -> None:
    """Make a folder, and each that it is in, unless it is there."""
    if not path.is_dir():
        create_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)


def tighten(path: Path) -> None:
    """Remove the access of other users to a file or folder, if it exists and belongs to this user; the log says so.

    It is not opened: closing it would end the locks that SQLite holds on it in this process.
    """
    try:
        status = path.stat()
        if status.st_uid != os.geteuid() or not status.st_mode & _OTHERS:
            return
        path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)
    except FileNotFoundError:
        return
    except OSError as error:
        # As on a file system that is read-only.
        log.warning("other users may read %s, and that cannot be changed (%s)", path, error.strerror)
        return
    log.warning("other users could read %s; now they cannot", path)
