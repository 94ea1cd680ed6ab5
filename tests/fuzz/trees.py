"""Random folders of patients, visits and runs: what is imported as one case must be of one person and one visit.

    python tests/fuzz/trees.py 500

Each file is empty; who and when it is of is known here. The ordinary tests (`tests/test_fuzz.py`) try fewer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

WHEN = [
    "ses-{:02d}",
    "ses-{}",
    "visit{}",
    "Visit_{}",
    "v{}",
    "tp{}",
    "2019-03-{:02d}",
    "201903{:02d}",
    "ses-m{:02d}",
    "study{}",
]
LAYOUTS = [
    "sub-{p}/{s}/anat/sub-{p}_{s}{r}_{c}", "sub-{p}/{s}/{c}", "{p}/{s}/{c}", "{p}/{s}/{p}_{s}_{c}", "{p}/{p}_{s}_{c}",
    "{p}/{s}_{c}", "{p}/{c}_{s}", "{p}_{s}_{c}", "{s}/{p}/{c}", "{p}/{s}/anat/{c}", "{p}/{s}/nii/{p}_{c}",
]  # fmt: skip


def tree(folder: Path, rng: np.random.Generator) -> dict[str, tuple[str, int]]:
    """Make a random tree; return whose and of which visit each file is."""
    when, layout, points_layout = rng.choice(WHEN), *rng.choice(LAYOUTS, 2)
    bids = layout.startswith("sub-")
    if bids and not when.startswith("ses-"):
        when = "ses-{}"
    # A path names a person in one way throughout, as people do it.
    family = [form for form in LAYOUTS if form.startswith("sub-") == bids and ("/" in form) == ("/" in layout)]
    points_layout = layout if rng.random() < 0.5 else str(rng.choice(family))
    if when.startswith("study") and "/" not in layout:
        when = "visit{}"
    owners = {}
    for person in rng.permutation(["P01", "P02", "P10", "07", "A7"])[: rng.integers(1, 4)]:
        for visit in range(1, int(rng.integers(1, 4)) + 1):
            run = f"_run-{rng.integers(1, 3)}" if rng.random() < 0.3 else "_acq-3D" if rng.random() < 0.3 else ""
            for form, name, ending in ((layout, "FLAIR", ".nii.gz"), (points_layout, "points", ".mrk.json")):
                if rng.random() < 0.25:  # lacking: no other visit's may take its place
                    continue
                place = form.format(p=person, s=when.format(visit), c=name, r=run) + ending
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).touch()
                owners[place] = (str(person), visit)
    return owners


def mixed(seed: int) -> tuple[str, int]:
    """Pair the files of a random tree; return what is wrong, and how many cases there are."""
    from lesionkit.importing.pairing import by_patient, scan

    with tempfile.TemporaryDirectory() as scratch:
        owners = tree(Path(scratch), np.random.default_rng(seed))
        files, rows = scan(Path(scratch), ("FLAIR",))
        patients, refused = by_patient(files, ("FLAIR",))
    people: dict[str, str] = {}
    for patient in patients:
        owned = {owners[file.name] for file in patient.files()}
        named = [file.name for file in patient.files()]
        if len(owned) > 1:
            return f"seed {seed}: one case of {named}", len(patients)
        ((person, _),) = owned
        if people.setdefault(person, patient.person) != patient.person:
            return f"seed {seed}: {person} is two people: {named}", len(patients)
    complete = sum(n == 2 for n in (list(owners.values()).count(owner) for owner in set(owners.values())))
    if len(patients) != complete:
        whys = {row.what for row in (*rows, *refused)}
        return f"seed {seed}: {len(patients)} of {complete} cases of {sorted(owners)}: {whys}", len(patients)
    return "", len(patients)


if __name__ == "__main__":
    found = [mixed(seed) for seed in range(int(sys.argv[1]))]
    wrong = [what for what, _ in found if what]
    print(f"{len(found)} trees, {sum(n for _, n in found)} cases, {len(wrong)} wrong", *wrong[:20], sep="\n")
    sys.exit(bool(wrong))
