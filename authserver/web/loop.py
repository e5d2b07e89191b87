"""The loop in which one thread waits for all connections of a server, in place of the one of waitress.

waitress asks every connection in every round what it waits for, makes a new list of that for the system, and every answer
wakes the loop for one more round. Here the list is kept, a connection is asked when something happens to it, and an
answer that was sent whole wakes nobody: while a request is answered its connection stays in the list, because nearly no
client sends the next request before it has the answer.
"""

from __future__ import annotations

import select
from collections import deque
from typing import Any

from waitress import wasyncore

# Is reported whether it is waited for or not.
_TROUBLE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Loop:
    """Waits for connections, for those who make some, and for the triggers by which threads wake it.

    Args:
        channels: all of them, by their descriptors, as waitress keeps them.
    """

    def __init__(self, channels: dict[int, Any]) -> None:
        self._channels = channels
        self._poll = select.poll()
        # What the system waits for, by descriptor.
        self._flags: dict[int, int] = {}
        self._changed: deque[Any] = deque()

    def note(self, channel: Any) -> None:
        """Ask this one before the next round what it waits for. Any thread may call this."""
        self._changed.append(channel)

    def forget(self, descriptor: int) -> None:
        """Wait for this one no longer; to be called before it is closed, since another one may get its descriptor then."""
        self._wait_for(descriptor, 0)

    def once(self, timeout: float) -> None:
        """Wait so many seconds for something to happen, and do what it asks for."""
        while self._changed:
            channel = self._changed.popleft()
            # It may be closed already, and another one may have its descriptor.
            if self._channels.get(channel._fileno) is channel:
                self._ask(channel)
        for descriptor, flags in self._poll.poll(timeout * 1000):
            channel = self._channels.get(descriptor)
            if channel is not None and (wanted := self._ask(channel)):
                wasyncore.readwrite(channel, flags & (wanted | _TROUBLE))
                if channel.writable():
                    self.note(channel)

    def _ask(self, channel: Any) -> int:
        """Wait for what this one waits for, and return that: 0 while its request is answered."""
        # First, so that a thread that ends an answer at this moment sees that it must wake the loop.
        channel.is_paused = True
        flags = 0
        if channel.readable():
            channel.is_paused = False
            flags = select.POLLIN | select.POLLPRI
        if channel.writable() and not channel.accepting:
            flags |= select.POLLOUT
        self._wait_for(channel._fileno, flags)
        return flags

    def _wait_for(self, descriptor: int, flags: int) -> None:
        if flags == self._flags.get(descriptor, 0):
            return
        if flags:
            self._poll.register(descriptor, flags)
            self._flags[descriptor] = flags
        else:
            self._poll.unregister(descriptor)
            del self._flags[descriptor]
