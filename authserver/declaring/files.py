"""The files of declarations, found and read: bounded in number and size, and none from where a link leads in a circle."""

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
    """The file itself, or all files of a folder and of those in it whose names end in `.toml`, by name.

    Hidden files and folders are left out, and so are links to folders.

    Raises:
        BadFile: there is nothing, or too much.
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
                f"{path}: there are more than {MAXIMUM_FILES} files {SUFFIX}; name a folder with fewer"
            )
    if not found:
        raise BadFile(f"{path}: there is no file {SUFFIX} in it")
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
        private: whether it holds a secret, so that nobody but its owner and group may read it.

    Raises:
        BadFile: it is none, cannot be read, is too large, or everybody may read it and must not.
    """
    try:
        # A pipe or a device would not end, or never begin.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadFile(f"{path}: this is no file")
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
