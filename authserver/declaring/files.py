"""Finds and reads the files of declarations, with limits on their number and size; links to folders are not followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

MAXIMUM_FILES = 1_000
MAXIMUM_FILE = 1_048_576
SUFFIX = ".toml"


class BadFile(Exception):
    """Why a file cannot be read, as a sentence that names it."""


def files_at(path: Path) -> Sequence[Path]:
    """The file itself, or all files in a folder and its subfolders whose names end in `.toml`, sorted by name.

    Hidden files and folders are left out, and so are links to folders.

    Raises:
        BadFile: there is no such file, or there are too many.
    """
    if not path.exists():
        raise BadFile(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    found: list[Path] = []
    for file in _walk(path):
        found.append(file)
        if len(found) > MAXIMUM_FILES:
            raise BadFile(
                f"{path}: there are more than {MAXIMUM_FILES} {SUFFIX} files; name a folder with fewer"
            )
    if not found:
        raise BadFile(f"{path}: there is no {SUFFIX} file in it")
    return sorted(found)


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise BadFile(f"{error.filename}: {error.strerror}") from error

    for at, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.endswith(SUFFIX) and not name.startswith("."):
                yield Path(at, name)


def read(path: Path, *, maximum: int = MAXIMUM_FILE, private: bool = False) -> bytes:
    """The content of a regular file.

    Args:
        private: whether it holds a secret, so that only its owner and group may have the right to read it.

    Raises:
        BadFile: it is not a regular file, cannot be read, is too large, or is private and readable for everybody.
    """
    try:
        # Without O_NONBLOCK, to open a pipe or a device could wait forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadFile(f"{path}: this is not a regular file")
            if private and status.st_mode & stat.S_IRWXO:
                raise BadFile(
                    f"{path}: every user of this machine may read it: `chmod o= {path}` changes that"
                )
            content = file.read(maximum + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadFile(f"{path}: {why}") from error
    if len(content) > maximum:
        raise BadFile(f"{path}: it has more than {maximum} bytes")
    return content
