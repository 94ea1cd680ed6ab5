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
