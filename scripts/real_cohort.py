"""Make the cohort that the flair network is trained on: real patients of three sources, and simulated ones.

`python scripts/real_cohort.py REAL_MS SIMULATED OUTPUT`: the patients and splits are those of `real_patients.tsv`; the
simulated ones (`lesionkit simulate --kind flair -o SIMULATED`) are all for training. A patient that is
`stripped` there is seen without the skull, by the mask of its source, where that is not done yet. All come through
`lesionkit import`, at 1 mm. The network learns what a scalp is, so that its loss counts in the whole head, which stands
in for the brain's mask here.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from lesionkit.importing import ImportConfig, import_cohort
from lesionkit.io import (
    read_cohort,
    read_points,
    read_volume,
    write_cohort_description,
    write_participants,
    write_points,
    write_volume,
)
from lesionkit.preprocessing import head_mask

TABLE = Path(__file__).with_name("real_patients.tsv")

SMALLEST = 3
"""Voxels (1 mm3) of a lesion; less is a crumb of resampling."""


def main(real: Path, simulated: Path, output: Path) -> None:
    """Import the real patients, and put the simulated ones beside them."""
    patients = pd.read_csv(TABLE, sep="\t", dtype=str)
    with tempfile.TemporaryDirectory() as scratch:
        for row in patients.itertuples():
            folder = Path(scratch, str(row.participant_id))
            folder.mkdir()
            source = real / str(row.folder)
            shutil.copy(source / "lesions.nii.gz", folder)
            image = read_volume(source / "FLAIR.nii.gz")
            seen = head_mask(image)
            if row.stripped == "yes" and (source / "brainmask.nii.gz").exists():
                seen = read_volume(source / "brainmask.nii.gz").data > 0
                image = image.with_data(np.where(seen, image.data, 0))
            write_volume(folder / "FLAIR.nii.gz", image)
            write_volume(folder / "brainmask.nii.gz", image.with_data(seen.astype(np.uint8)))
        patients[["participant_id", "split"]].to_csv(Path(scratch, "participants.tsv"), sep="\t", index=False)
        report = import_cohort(scratch, output, ImportConfig(channels=("FLAIR",), spacing=1.0, kind="flair"))
    for verdict in report.rows:
        print(verdict.status, verdict.file, verdict.what)
    real_rows = patients.assign(participant_id="sub-" + patients["participant_id"])
    kept = real_rows[real_rows["participant_id"].isin([case.subject for case in report.cohort])]
    for case in report.cohort:
        assert case.points is not None  # the import wrote it
        points = read_points(case.points)
        write_points(case.points, points[points["size_vox"] >= SMALLEST].reset_index(drop=True))
    drawn = read_cohort(simulated)
    rows = pd.DataFrame({"participant_id": [case.subject for case in drawn], "dataset": "simulated", "split": "train"})
    for part in (".", "derivatives/lesions"):
        for case in drawn:
            shutil.copytree(simulated / part / case.subject, output / part / case.subject)
    table = pd.concat([kept[["participant_id", "split", "dataset", "person"]], rows]).fillna("n/a")
    write_participants(output, table)
    write_cohort_description(output, "flair", ("FLAIR",), simulated=dict(drawn.extra))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
