"""Sends letters: through the plugins that send mail, in the background of a server process, or at once for a command.

What waits is in the memory of the process: a mail that was not sent when the process ends is lost, and the person asks for
another one.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from authserver.engine.letters import HOOK, Letter, LetterKind, MailFailed
from authserver.engine.people.password_links import ASK_PAGE
from authserver.engine.ports import ContributionFailed, Policies
from authserver.settings import Settings
from authserver.web.languages import Languages
from authserver.web.letters import mail_of

# Seconds after which a mail that was not sent is tried again, each time later.
RETRIES: Sequence[float] = (5, 30, 120, 600)
# How much waits at most: somebody who asks for more of it than that finds nothing sent.
MAXIMUM_WAITING = 1_000
# How long the end of the process waits for the mail that is just being sent.
LAST_SECONDS = 1.0
log = logging.getLogger(__name__)

Work = Callable[[], None]


class Mailer:
    """Sends letters.

    Args:
        in_background: whether `put` returns at once and a thread sends the letter, several times if need be.
        failed: called with each letter that could not be sent, and the reason.
    """

    def __init__(
        self,
        policies: Policies,
        settings: Settings,
        *,
        in_background: bool,
        failed: Callable[[Letter, str], None],
        retries: Sequence[float] = RETRIES,
    ) -> None:
        self._policies = policies
        self._settings = settings
        self._languages = Languages(settings)
        self._in_background = in_background
        self._failed = failed
        self._retries = retries
        self._order = count()
        # When it is due, which of those comes first, and what is done then.
        self._waiting: list[tuple[float, int, Work]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._works = False
        self._ended = False

    def put(self, letters: Sequence[Letter]) -> None:
        """Send these letters, whose transaction is committed.

        Raises:
            MailFailed: one with a link was not sent; in the background nothing is raised.
        """
        for letter in letters:
            if not self._in_background:
                self._send_now(letter)
            elif not self.later(partial(self._try, letter, 0)):
                self._drop(letter)

    def later(self, work: Work, *, seconds: float = 0.0) -> bool:
        """Do something in the background, in turn; False when too much waits, or the process ends."""
        with self._changed:
            if self._ended or len(self._waiting) >= MAXIMUM_WAITING:
                log.warning(
                    "too much mail waits to be sent: one is dropped; is the mail server slow or down?"
                )
                return False
            heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._order), work))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mail", daemon=True)
                self._thread.start()
            self._changed.notify()
        return True

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nothing is being sent."""
        with self._changed:
            return not self._waiting and not self._works

    def stop(self) -> None:
        """Send nothing more. Harmless a second time."""
        with self._changed:
            lost = len(self._waiting)
            self._ended = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=LAST_SECONDS)
        if lost:
            log.warning("%s mails were not sent before the end of this process", lost)

    def send(self, letter: Letter) -> None:
        """Send it now. Raises MailFailed."""
        mail = mail_of(letter, self._settings, self._languages, ask_at=self._settings.issuer + ASK_PAGE)
        try:
            sent = [value for _, value in self._policies.contribute(HOOK, mail=mail)]
        except ContributionFailed as error:
            cause = error.__cause__
            if isinstance(cause, MailFailed):
                raise cause from None
            raise MailFailed(str(error)) from None
        if not any(sent):
            raise MailFailed("no plugin sends mail to this person", is_final=True)

    def _send_now(self, letter: Letter) -> None:
        try:
            self.send(letter)
        except MailFailed as error:
            self._failed(letter, str(error))
            if letter.kind is not LetterKind.PASSWORD_CHANGED:
                raise

    def _drop(self, letter: Letter) -> None:
        """Log a letter that will not be sent; the request that wrote it has succeeded."""
        try:
            self._failed(letter, "too much mail waits, or the process ends")
        except Exception:
            log.exception("that the mail of somebody was dropped could not be noted")

    def _try(self, letter: Letter, failures: int) -> None:
        try:
            self.send(letter)
            return
        except MailFailed as error:
            problem, is_final = str(error), error.is_final or failures >= len(self._retries)
        if not is_final:
            log.info("a mail was not sent (%s); trying again in %s s", problem, self._retries[failures])
            is_final = not self.later(
                lambda: self._try(letter, failures + 1), seconds=self._retries[failures]
            )
        if is_final:
            self._failed(letter, problem)

    def _run(self) -> None:
        while work := self._next():
            try:
                work()
            except Exception:
                log.exception("the mail of somebody was not sent")

    def _next(self) -> Work | None:
        """What is due, as soon as it is; None at the end."""
        with self._changed:
            self._works = False
            while not self._ended:
                now = time.monotonic()
                if self._waiting and self._waiting[0][0] <= now:
                    self._works = True
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(self._waiting[0][0] - now if self._waiting else None)
        return None
