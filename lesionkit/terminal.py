"""What a run says while it goes: on a terminal, in a log file, or to nobody; saying it never ends the run.

In: streams of any encoding, or none. Out: a `Terminal` to print on, a `Bar` of progress, and an end after SIGTERM.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM."""


class Terminal(Console):
    """A console that prints names as they are, and goes on when nobody reads or the disk under a log is full."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, if anybody listens."""
        try:
            super().print(*objects, **options)
        except (OSError, ValueError):  # full, or closed
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Say the rest to nobody, and do so at the interpreter's end too."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)
        self.quiet = True


class Bar(Progress):
    """Progress as bars on a terminal; elsewhere as a line a stage and every 10 %, so that a log shows life."""

    def __init__(self, console: Console, *columns: Any) -> None:
        standard = (BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown = columns or (TextColumn("{task.description}", markup=False), *standard)
        super().__init__(*shown, console=console, transient=True, disable=not console.is_terminal)
        self._said: dict[Any, tuple[str, int]] = {}

    def update(self, task_id: Any, **changes: Any) -> None:
        """Show how far a task is."""
        super().update(task_id, **changes)
        task = self._tasks[task_id]
        if self.disable and task.total and task.description:
            state = (task.description, int(10 * task.completed / task.total))
            if state != self._said.get(task_id, (task.description, 0)):
                self.console.print(f"{task.description}: {10 * state[1]} %  {task.fields.get('scores', '')}".rstrip())
            self._said[task_id] = state


def never_fail_to_print() -> None:
    """Let the standard streams take every character: bytes of file names as they were, what they lack as an escape."""
    codecs.register_error("lesionkit", _as_it_is)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="lesionkit")  # type: ignore[union-attr]  # what is no text stream has none


def _as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    with suppress(UnicodeEncodeError):
        return text.encode("ascii", "surrogateescape"), error.end
    return codecs.backslashreplace_errors(error)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit` of code 143, so that temporary folders, servers and workers are cleaned up."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what cleans up is not interrupted
        raise SystemExit(TERMINATED)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
