"""Which commands read which kind of file, and the rows of the matrix."""

from __future__ import annotations

from pathlib import Path

from inputs import CHECKPOINTS, CLICKS, COHORTS, IMAGES, POINTS, Study

ROWS = [
    *(("image", bad) for bad in IMAGES),
    *(("points", bad) for bad in POINTS),
    *(("clicks", bad) for bad in CLICKS),
    *(("checkpoint", bad) for bad in CHECKPOINTS),
    *(("cohort", bad) for bad in COHORTS),
]


ARGUMENTS: tuple[tuple[str, str], ...] = (
    ("simulate --jobs 0 -o NEW", "jobs must be a number of processes, or -1 for one a core, got 0"),
    ("simulate --n 0 -o NEW", "Invalid value for '--n'"),
    ("simulate -o IMAGE", "IMAGE/participants.tsv: cannot be written (File exists); a writable place is wanted"),
    ("train COHORT --sigma 0 -o NEW", "sigma must be positive and finite (standard deviation in voxels), got 0.0"),
    ("train COHORT --sigma-mm nan -o NEW", "sigma_mm is nan; a positive number (mm) is wanted"),
    ("train COHORT --precision 12 -o NEW", "precision must be one of 32-true, bf16-mixed, 16-mixed, got '12'"),
    ("train COHORT --devices 5 -o NEW", "batch_size must be a multiple of the 5 processes that share it, got 24"),
    ("train COHORT --devices 4 -o NEW", "devices * num_nodes is 4, more than there are validation cases to share"),
    ("train COHORT --label segmentation -o NEW", "has no lesion mask; this label or placement of points wants one"),
    ("train COHORT --from gad -o NEW", "has channels FLAIR; checkpoint gad wants ce-gad_T1w, T1w"),
    ("train COHORT -o IMAGE", "IMAGE: cannot be made (File exists); a folder that can be written is wanted"),
    (
        "evaluate COHORT -c NET --split half -o NEW",
        "there is no split 'half'; one of train, validation, test is wanted",
    ),
    ("evaluate COHORT -c flair -o NEW", "checkpoint flair was trained at (1.0, 1.0, 1.0) mm. Resample the cohort"),
    ("import RAW --spacing 1,2 -o NEW", "one or three lengths (mm) above 0.05 are wanted"),
    ("import RAW --channels T9 -o NEW", "the patient has no image T9; one of each channel is wanted"),
    ("import RAW -o RAW/new", "RAW/new: lies in the folder that is imported; a new folder elsewhere is wanted"),
    ("import RAW -o COHORT", "COHORT: holds files already, which stay as they are"),
    ("detect IMAGE -c NET --device tpu -o NEW", "device is 'tpu', which cannot be used here"),
    ("detect IMAGE IMAGE -c NET -o NEW", "run them one at a time, or into folders of their own"),
    ("detect IMAGE -c gad -o NEW", "checkpoint gad wants 2 images a case, in this order: ce-gad_T1w, T1w; got 1"),
    ("detect IMAGE -c NET --threshold -1 -o NEW", "Invalid value for '--threshold'"),
    ("longitudinal IMAGE IMAGE --sigma-mm 0 -o NEW", "sigma_mm must be positive, got 0.0"),
    ("export IMAGE -c NET --sigma 0 -o NEW/page.html", "sigma must be positive and finite, in voxels, got 0.0"),
    ("evaluate COHORT -c NET --hits mask --gate after -o NEW", "--gate after goes with --hits distance"),
    ("reproduce --jobs 0 -o NEW", "jobs must be a number of processes, or -1 for one a core, got 0"),
    ("reproduce --cohort COHORT -o NEW", "of the train split have no lesion mask"),
    ("points convert POINTS NEW/p.xyz", "is no name that points are written to; .mrk.json, .fcsv, .tsv, .csv or"),
    ("points convert POINTS NEW/p_napari.csv", "holds voxel indices; the image that they count in is wanted"),
)
"""Settings that cannot be used, and what is said; NEW is a folder that is not there yet."""


def arguments_of(line: str, study: Study) -> list[str]:
    """Return a line of `ARGUMENTS` with the paths of a study."""
    places = {
        "IMAGE": study.image, "COHORT": study.cohort, "RAW": study.raw, "NET": study.checkpoint, "POINTS": study.points,
        "NEW": study.folder / "new",
    }  # fmt: skip
    words = [(word, *word.partition("/")[::2]) for word in line.split()]
    return [str(places[name] / rest) if name in places else word for word, name, rest in words]


def targets(kind: str, study: Study) -> list[Path]:
    """Return the files (or the folder) that a row spoils."""
    anat, truth = "sub-1/anat/sub-1_FLAIR.nii.gz", "sub-1/anat/sub-1_label-lesion_points.tsv"
    return {
        "image": [study.image, study.raw / "A" / "FLAIR.nii.gz", study.cohort / anat],
        "points": [study.points, study.cohort / "derivatives" / "lesions" / truth],
        "clicks": [study.clicks],
        "checkpoint": [study.checkpoint],
        "cohort": [study.cohort],
    }[kind]


def commands(kind: str, study: Study) -> dict[str, list[str]]:
    """Return the commands that read a kind of file, by name; the first is the one whose words the page shows."""
    image, points, net, out = str(study.image), str(study.points), str(study.checkpoint), str(study.results)
    train = ["train", str(study.cohort), "--steps", "1", "-o", str(study.folder / "run")]
    evaluate = ["evaluate", str(study.cohort), "-c", net, "-o", out, "--no-baselines", "--split", "train"]
    bring = ["import", str(study.raw), "-o", str(study.folder / "imported")]
    return {
        "image": {
            "detect": ["detect", image, "-c", net, "-o", out],
            "predict": ["predict", image, "-c", net, "-o", out],
            "points convert": ["points", "convert", points, f"{out}/p.csv", "--image", image],
            "export": ["export", image, "-c", net, "-o", f"{out}/page.html"],
            "dashboard": ["dashboard", image, "-c", net],
            "longitudinal": ["longitudinal", image, image, "-o", out],
            "import": bring,
            "train": train,
            "evaluate": evaluate,
        },
        "points": {
            "points convert": ["points", "convert", points, f"{out}/p.csv", "--image", image],
            "detect --truth": ["detect", image, "-c", net, "-o", out, "--truth", points],
            "export --truth": ["export", image, "-c", net, "-o", f"{out}/page.html", "--truth", points],
            "train": train,
            "evaluate": evaluate,
        },
        "clicks": {
            "points convert": ["points", "convert", str(study.clicks), f"{out}/p.csv", "--image", image],
            "import": bring,
        },
        "checkpoint": {
            "detect": ["detect", image, "-c", net, "-o", out],
            "predict": ["predict", image, "-c", net, "-o", out],
            "evaluate": evaluate,
            "import --like": [*bring, "--like", net],
        },
        "cohort": {
            "train": train,
            "evaluate": evaluate,
            "reproduce": ["reproduce", "--cohort", str(study.cohort), "-o", str(study.folder / "tables")],
        },
    }[kind]
