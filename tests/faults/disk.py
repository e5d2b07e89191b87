"""A small disk that can be filled: a tmpfs where that may be mounted, else a limit on how large files may grow."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Bytes.
SIZE = 32 << 20


class Disk:
    """A folder of its own file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Take all space that is left."""
        with Path(self.folder, "filler").open("ab", buffering=0) as filler:
            size = 1 << 20
            while size:
                try:
                    filler.write(bytes(size))
                except OSError:
                    size //= 2

    def free(self) -> None:
        Path(self.folder, "filler").unlink(missing_ok=True)


class Limit:
    """A folder in which the files of some processes cannot grow (RLIMIT_FSIZE), where nothing can be mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids: Callable[[], list[int]] = list

    def fill(self) -> None:
        largest = max((path.stat().st_size for path in self.folder.glob("*.db*")), default=0)
        self._limit(min(largest, 4096))

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        for pid in self.pids():
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk | Limit]:
    """An empty folder in which space runs out when it is told to."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield Disk(folder) if mounted else Limit(folder)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
