"""When a trainer is asked to end: by SIGTERM, or by a launcher that lets go of its lease. No torch here: it begins to
listen before torch is imported, which takes seconds.

The loop ends at its next boundary, with a checkpoint. Where that does not come in time, as while a model is compiled, a
thread ends the process: what is lost are the steps since the last checkpoint.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable


class Stop:
    """Listens from the main thread on, for as long as the process lives."""

    def __init__(self, grace: float, look: Callable[[], bool] = lambda: False, every: float = 0.2) -> None:
        """
        Args:
            grace: seconds from being asked to the end of the process.
            look: asked now and then whether there is another reason to end.
            every: seconds between looks.
        """
        self.grace = grace
        self.look = look
        self.every = every
        self.asked = self.signalled = False
        """Whether to end, and whether a signal said so."""
        self.blind = False
        """Whether the last look failed."""
        self.last_word: Callable[[], None] = lambda: None
        """What to do before the process is ended."""
        # A handler runs between two lines of Python, which a collective or a compiler may put off for minutes; what
        # the kernel writes to this socket is read at once, by a thread.
        self.heard, told = socket.socketpair()
        told.setblocking(False)
        self.told = told
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher gets it too, and decides
        threading.Thread(target=self._listen, name="stop", daemon=True).start()

    def _listen(self) -> None:
        while not self.asked:
            ready, _, _ = select.select([self.heard], [], [], self.every)
            self.signalled = bool(ready) and signal.SIGTERM in self.heard.recv(64)
            self.asked = self.signalled or self._looked()
        time.sleep(self.grace)
        try:
            self.last_word()
        finally:
            os._exit(1)

    def _looked(self) -> bool:
        """What `look` says. A look that fails, as on a file system that is gone for a while, is told once and is no
        reason to end; signals are heard all the same."""
        try:
            asked, self.blind = self.look(), False
        except OSError as error:
            if not self.blind:
                print(f"pretrain: cannot tell whether the launcher is there: {error}", file=sys.stderr, flush=True)
            asked, self.blind = False, True
        return asked
