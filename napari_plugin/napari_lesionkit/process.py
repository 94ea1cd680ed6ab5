"""A network in a process of its own: importing torch would hold up a window of the same process for seconds.

`python -m napari_lesionkit.process` reads a job from its standard input, and writes how far it is and what it found to
its standard output. A process can also be stopped at once, whatever it is at.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence

from lesionkit.volume import Volume


class Cancelled(Exception):
    """A person has had enough of waiting."""


class NetworkProcess:
    """One run of a network; :meth:`run` belongs into a thread."""

    def __init__(self, checkpoint: str, images: Sequence[Volume]) -> None:
        self._job = checkpoint, list(images)
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def run(self, progress: Callable[[float], object]) -> Volume:
        """Predict the heatmap of a case.

        Parameters
        ----------
        progress : callable
            Called with the fraction done.

        Returns
        -------
        Volume
            As of :func:`lesionkit.inference.predict`.

        Raises
        ------
        Cancelled
            After :meth:`cancel`.
        ValueError
            If the checkpoint or the images cannot be used.
        RuntimeError
            If the process ends without a word: for want of memory, mostly.
        """
        # not multiprocessing, which would run the script anew that has opened napari
        # -P: nothing in the folder that one happens to be in is taken for a module
        command = [sys.executable, "-P", "-m", "napari_lesionkit.process"]
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, creationflags=flags) as process:
            self._process = process
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                if not self._cancelled:
                    progress(0.0)
                    with process.stdin:
                        pickle.dump(self._job, process.stdin)
                    while True:
                        kind, value = pickle.load(process.stdout)  # what our own process says
                        if kind == "heatmap":
                            return value
                        if kind == "failed":
                            raise ValueError(value)
                        progress(value)
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                if not self._cancelled:
                    code = process.wait()
                    raise RuntimeError(
                        f"the network's process ended with code {code}; is there memory enough?"
                    ) from error
            finally:
                process.kill()
        raise Cancelled

    def cancel(self) -> None:
        """Stop it at once."""
        self._cancelled = True
        if self._process is not None:
            self._process.kill()


def main() -> None:
    """Do one job, in the process of its own."""
    if hasattr(os, "nice"):
        os.nice(5)  # the window comes first
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # nothing that is printed gets between the answers

    def say(kind: str, value: object) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    checkpoint, images = pickle.load(sys.stdin.buffer)
    try:
        from lesionkit.checkpoints import load_checkpoint
        from lesionkit.inference import predict

        say("heatmap", predict(load_checkpoint(checkpoint), images, progress=lambda part: say("part", part)))
    except Exception as error:  # there is nobody to raise to
        say("failed", str(error) or type(error).__name__)


if __name__ == "__main__":
    main()
