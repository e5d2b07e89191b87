"""How many connections each process of a server has, in memory that all of them share.

All processes wait for connections at the same sockets, the system wakes all of them for each new one, and the fastest takes
it. That is mostly the same process: of sixteen connections it took up to fourteen, and then did nearly all of the work. So
a process that has more connections than another one leaves a new one to that, for a moment (`connections.Listener`).
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import Self

_COUNT = struct.Struct("=I")
# In place of a number: there is no such process, or it does not accept connections yet.
_ABSENT = 2**32 - 1


class ConnectionCounts:
    """The numbers of connections of all processes; each writes its own.

    Args:
        descriptor: of the file that holds them.
        own: the place of this process, from 0; None in the parent, which has none.

    Attributes:
        descriptor: the same.
    """

    def __init__(self, descriptor: int, own: int | None = None) -> None:
        self.descriptor, self._own = descriptor, own
        self._shared = mmap.mmap(descriptor, 0)
        self._told: int | None = None

    @classmethod
    def make(cls, processes: int) -> Self:
        """The counts of so many processes, none of which is there yet. They are in a file without a name."""
        with tempfile.TemporaryFile() as file:
            file.write(_COUNT.pack(_ABSENT) * processes)
            file.flush()
            return cls(os.dup(file.fileno()))

    def tell(self, number: int) -> None:
        """Let the others know how many connections this process has."""
        if self._own is not None and number != self._told:
            self._told = number
            _COUNT.pack_into(self._shared, self._own * _COUNT.size, number)

    def forget(self, place: int) -> None:
        """The process at this place has ended."""
        _COUNT.pack_into(self._shared, place * _COUNT.size, _ABSENT)

    def is_above_another(self, number: int) -> bool:
        """Whether another process has fewer connections than this number."""
        counts = _COUNT.iter_unpack(self._shared)
        return any(count < number for place, (count,) in enumerate(counts) if place != self._own)
