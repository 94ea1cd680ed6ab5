"""The folder of a training: what an interrupted one left in it, and whether it can be written.

In: a folder, settings, what went wrong. Out: a state to go on from, or one line that names the folder.
"""

from __future__ import annotations

import errno
import inspect
import multiprocessing
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lesionkit.checkpoints import load_state
from lesionkit.io import DataError
from lesionkit.training.config import TrainConfig

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def interrupted(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state of the training that was begun in a folder; None if there was none.

    Parameters
    ----------
    folder : path
        Of the training.
    settings : mapping
        `CohortData.settings` of the one that is to go on with it.

    Raises
    ------
    DataError
        If the state cannot be read, or is that of a training with other settings or patients.
    """
    path = folder / "working" / "last.ckpt"
    if not path.is_file():
        return None
    state = load_state(path)
    there = state.get("settings", {})  # versions before this one kept none
    differ = [
        f"{name} ({value} there, {settings.get(name)} here)"
        for name, value in there.items()
        if settings.get(name) != value
    ]
    if differ:
        raise DataError(
            f"{folder}: holds a training that differs in {', '.join(differ)}; to resume it, the same settings and "
            "cohort are wanted; for another training, another folder"
        )
    return state


def is_over(state: Mapping[str, Any], config: TrainConfig) -> bool:
    """Tell whether a training has taken all its steps, or has lost its patience."""
    callbacks: Mapping[str, Any] = state["callbacks"]
    waited = [kept["wait_count"] for name, kept in callbacks.items() if name.startswith("EarlyStopping")]
    return state["global_step"] >= config.steps or 0 < config.patience <= max(waited, default=0)


def claim(folder: Path) -> None:
    """Make a folder, if it is not there, and see that files can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        wrong = "cannot be written" if folder.is_dir() else "cannot be made"
        wanted = "a folder that can be written is wanted"
        raise DataError(f"{folder}: {wrong} ({error.strerror or error}); {wanted}") from error


def check_main_guard() -> None:
    """Raise if processes that load data would run the user's script again, and wait for one another for ever."""
    script = sys.modules["__main__"]
    path = getattr(script, "__file__", None)
    if path is None or multiprocessing.get_start_method() == "fork":
        return
    with suppress(OSError, TypeError):
        if "__name__" in inspect.getsource(script):
            return
    raise DataError(
        f"{path}: has no main guard; 'if __name__ == \"__main__\":' around train(), or workers=0, is wanted"
    )


def origin(error: BaseException, folder: Path) -> BaseException:
    """Return what an error goes back to, Ctrl-C or a refused file; Lightning stumbles in cleaning up after these."""
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    first = (link for kind in (KeyboardInterrupt, DataError, OSError) for link in chain if isinstance(link, kind))
    found = next(first, error)
    if isinstance(found, OSError) and found.errno in _FULL:  # of a log, whose writer does not name it
        return DataError(f"{folder}: cannot be written ({found.strerror}); room on its disk is wanted")
    return found
