"""A trace of a few steps, for chrome://tracing or https://ui.perfetto.dev: what ran when, and on which thread."""

from pathlib import Path

import torch


class NoProfiler:
    """Records nothing."""

    def before(self, step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Profiler:
    """Records steps `first` to `stop` - 1, counted from 0 as in the log's `tokens`; `path` gets the trace."""

    def __init__(self, path: Path, first: int, stop: int) -> None:
        self.path, self.first, self.stop = path, first, stop
        self._running: torch.profiler.profile | None = None

    def before(self, step: int) -> None:
        """Told before every step, and after the last."""
        if step == self.first:
            self._running = torch.profiler.profile()
            self._running.start()
        elif step >= self.stop:
            self.close()

    def close(self) -> None:
        """Write what was recorded, if anything was."""
        if self._running is None:
            return
        self._running.stop()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._running.export_chrome_trace(str(self.path))
        self._running = None
        print(f"pretrain: profile of steps {self.first} to {self.stop - 1}: {self.path}", flush=True)
