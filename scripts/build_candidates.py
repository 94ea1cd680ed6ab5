"""Make `data_samples/candidates/`: what the shipped `gad` network finds in 60 fresh patients, and the truth.

Run from the repository: `python scripts/build_candidates.py`; about five minutes. The patients are outside every
training cohort; half of them are called validation, half test. For the notebook on calibration, which so needs no
network and no hour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lesionkit.checkpoints import load_checkpoint
from lesionkit.io import write_participants, write_points
from lesionkit.pipeline import detect_lesions
from lesionkit.simulate import SimulationConfig, simulate_case

SEED = 20260601
N = 60


def main() -> None:
    """Simulate, detect, write."""
    folder = Path(__file__).parents[1] / "data_samples" / "candidates"
    folder.mkdir(exist_ok=True)
    network = load_checkpoint("gad")
    found, truth = [], []
    for number in range(N):
        case = simulate_case(SimulationConfig.preset("gad"), rng=np.random.default_rng([SEED, number]))
        facts = {"subject": f"sub-{number + 1:02d}", "split": "validation" if number < N // 2 else "test"}
        frame = detect_lesions(network, case.images).candidates()
        found.append(frame[["x", "y", "z", "alpha", "alpha_window"]].assign(**facts))
        truth.append(case.lesions[["x", "y", "z", "size_vox"]].assign(**facts))
    patients = [f"sub-{number + 1:02d}" for number in range(N)]
    splits = ["validation" if number < N // 2 else "test" for number in range(N)]
    write_participants(folder, pd.DataFrame({"participant_id": patients, "split": splits}))
    for name, frames in (("candidates", found), ("points", truth)):
        write_points(folder / f"{name}.tsv", pd.concat(frames, ignore_index=True).round(4))


if __name__ == "__main__":
    main()
