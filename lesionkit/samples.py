"""The cases that come with the kit (`data_samples/`), by name.

In: the name of a sample. Out: the paths of its files; nothing is read.
"""

from __future__ import annotations

from pathlib import Path

from lesionkit.io import Case, Cohort, DataError, read_cohort


def samples_folder() -> Path:
    """Return the folder of the samples: inside the installed package, or beside it in a checkout.

    Raises
    ------
    DataError
        If neither is there.
    """
    package = Path(__file__).parent
    for folder in (package / "data_samples", package.parent / "data_samples"):
        if (folder / "gad").is_dir():
            return folder
    raise DataError(f"{package.parent / 'data_samples'}: the sample cases are missing; install lesionkit again")


def sample(kind: str) -> tuple[Cohort, Case]:
    """Return the sample case of a kind (`gad` or `flair`), and the small cohort that holds it.

    Raises
    ------
    ValueError
        If there is no sample of that kind.
    """
    names = sorted(path.name for path in samples_folder().iterdir() if (path / "dataset_description.json").is_file())
    if kind not in names:
        raise ValueError(f"kind must be one of {', '.join(names)}, got {kind!r}")
    cohort = read_cohort(samples_folder() / kind)
    return cohort, cohort[0]
