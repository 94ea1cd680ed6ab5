"""What all readers and writers share: the error of a file, checks, and writing as a whole or not at all."""

from __future__ import annotations

import gzip
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile


class DataError(ValueError):
    """A file cannot be used: the message names the file, what is wrong and what is wanted, on one line."""


def data_error(path: Path, wrong: str, wanted: str) -> DataError:
    """Compose the one line of a `DataError`."""
    return DataError(" ".join(f"{path}: {wrong}; {wanted}".splitlines()))


def check_is_file(path: Path, wanted: str) -> None:
    """Raise unless a path leads to a regular file."""
    try:
        found, folder, regular = path.exists(), path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:
        raise data_error(path, f"is no usable path ({error})", wanted) from error
    if not found:
        raise data_error(path, "does not exist", wanted)
    if folder:
        raise data_error(path, "is a folder", wanted)
    if not regular:
        raise data_error(path, "is a device or a pipe", wanted)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong while a file is read into a `DataError`."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise data_error(path, f"is truncated or corrupt ({error})", "fetch or export the file again") from error
    except OSError as error:
        raise data_error(path, f"cannot be read ({error.strerror or error})", "a readable file is wanted") from error
    except MemoryError as error:
        raise data_error(path, "does not fit into memory", "a smaller image or a larger machine is wanted") from error


def check_writable(*paths: Path) -> None:
    """Raise unless files can be written, before the work is done that fills them; nothing is made.

    Raises
    ------
    DataError
        Naming the first path that is a folder, or lies in what is none or cannot be written.
    """
    for path in paths:
        if path.is_dir():
            raise data_error(path, "is a folder", "the name of a file is wanted")
    for folder in dict.fromkeys(path.parent for path in paths):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        try:
            with TemporaryFile(dir=there):
                pass
        except OSError as error:
            wrong = f"cannot be written ({error.strerror or error})"
            raise data_error(there, wrong, "a folder that can be written is wanted") from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file as a whole or not at all.

    Parameters
    ----------
    path : path
        The file to make or replace; missing folders are made.

    Yields
    ------
    Path
        A new name beside it, with the same ending. It takes the place of `path` when the block ends, and is removed,
        with the folders that were made, when the block raises.

    Raises
    ------
    DataError
        If `path` is a folder, or the system refuses to write.
    """
    path = Path(path)
    if path.is_dir():
        raise data_error(path, "is a folder", "the name of a file is wanted")
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    temporary = path.with_name(f".{secrets.token_hex(6)}{ending}")
    made = [folder for folder in path.parents if not folder.exists()]
    done = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
        done = True
    except OSError as error:
        wrong = f"cannot be written ({error.strerror or error})"
        raise data_error(path, wrong, "a writable place is wanted") from error
    finally:
        if not done:
            with suppress(OSError):
                temporary.unlink()
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder as a whole or not at all.

    Parameters
    ----------
    path : path
        The folder to make; it must not exist, or be empty.

    Yields
    ------
    Path
        A new folder beside it. It takes the place of `path` when the block ends, and is removed with all that is in it
        when the block raises.

    Raises
    ------
    DataError
        If `path` is a file or holds something, or the system refuses to write.
    """
    path = Path(path)
    wanted = "the name of a new folder is wanted"
    try:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise data_error(path, "exists and is no folder", wanted)
        if path.is_dir() and any(path.iterdir()):
            raise data_error(path, "holds files already, which stay as they are", wanted)
        temporary = path.absolute().with_name(f".{path.absolute().name}.{secrets.token_hex(6)}")
        made = [folder for folder in temporary.parents if not folder.exists()]
    except OSError as error:
        raise data_error(path, f"is no usable path ({error.strerror or error})", wanted) from error
    done = False
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
        done = True
    except OSError as error:
        wrong = f"cannot be written ({error.strerror or error})"
        raise data_error(path, wrong, "a writable place is wanted") from error
    finally:
        if not done:
            shutil.rmtree(temporary, ignore_errors=True)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
