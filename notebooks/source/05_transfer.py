# %% [markdown]
# # 5 · Transfer: from points to outlines with few masks
#
# **Time:** 15 minutes to read, 4 minutes to run on two cores · **Paper:** section 3.3, section 4.3, tables 2 and 4
#
# After this notebook you will be able to
#
# 1. turn a detector that was trained on points into a segmenter,
# 2. compare it with training from scratch on the same few masks,
# 3. say what is transferred.

# %% tags=["parameters"]
PATIENTS, STEPS, SEED = 15, 80, 0
FRACTIONS = (0.1, 0.4)  # shares of the training patients whose masks may be used; the paper: 1, 5, 10 % of hundreds

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lesionkit.checkpoints import load_checkpoint
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig
from lesionkit.transfer import fine_tune, mask_subset, score_segmentation
from lesionkit.widgets.notebook import begin

FAST = begin()
if FAST:
    PATIENTS, STEPS, FRACTIONS = 5, 3, (0.5,)
work = Path(tempfile.mkdtemp(prefix="lesionkit_"))
cohort = simulate_cohort(SimulationConfig.preset("gad"), PATIENTS, work / "cohort", seed=SEED + 7)
detector = load_checkpoint("gad")
print({name: len(cohort.split(name)) for name in ("train", "validation", "test")}, "patients; detector:", detector.name)

# %% [markdown]
# ## Points are cheap, outlines are not
#
# A click takes a second, an outline minutes. The detector was trained on 120 patients with points. Its encoder must have learned
# what a lesion looks like; only the output changes: from a heatmap (exponential) to a probability a voxel (sigmoid).
#
# **Predict.** With the masks of *one or two* patients: does the fine-tuned network outline lesions? Does one from scratch?

# %%
base = replace(
    TrainConfig.preset("cpu"), model=detector.model.config, steps=STEPS, validate_every=STEPS, validation_cases=1,
    threshold_cases=2, patch=(32, 32, 32), batch_size=2, seed=SEED, workers=0, learning_rate=1e-3,
)  # fmt: skip
rows = []
for fraction in FRACTIONS:
    few = mask_subset(cohort, fraction, seed=SEED)
    for start in ("detector", "scratch"):
        folder = work / f"{start}_{fraction:g}"
        path = fine_tune(few, folder, base, detector=detector if start == "detector" else None, progress=False)
        score = score_segmentation(load_checkpoint(path), cohort)
        rows.append(
            {
                "masks": len(few.split("train")),
                "start": start,
                "F1 of voxels": score.dice,
                "Dice of a patient": score.patient_dice,
            }
        )
table = pd.DataFrame(rows)
table.round(3)

# %% [markdown]
# **Explain.** The number of steps is the same. From the detector, features that tell lesions from vessels are there at once. From
# scratch, a few masks and as few steps are not enough: most networks have hardly left the background.
#
# ### Exercise: how much is it worth?
#
# The gain of the detector's start, in points of the voxel-wise F1, for each number of masks.


# %% tags=["exercise"]
def gain(table):
    result = None
    # solution
    wide = table.pivot(index="masks", columns="start", values="F1 of voxels").fillna(0.0)
    result = wide["detector"] - wide["scratch"]
    # end
    return result


# %% tags=["check"]
gained = gain(table)
assert gained is not None, "gain must return one number for each number of masks"
assert sorted(gained.index) == sorted(set(table["masks"])), "one row for each number of masks"
print(gained.round(3).to_string())

# %%
import plotly.express as px

figure = px.bar(table.fillna(0.0), x="masks", y="F1 of voxels", color="start", barmode="group", range_y=(0, 1))
figure.update_xaxes(type="category", title="training patients with masks")
figure

# %% [markdown]
# ## With your own masks
#
# ```python
# from lesionkit.io import read_cohort
#
# mine = read_cohort("my_cohort")  # BIDS; the training patients need lesion masks
# path = fine_tune(mine, "segmenter", TrainConfig.preset("cpu"), detector=load_checkpoint("flair"))
# ```
#
# ## Summary
#
# What is learned from points carries over to outlines. A table of one small cohort and one seed is an anecdote: the paper
# repeats it with several subsets, and so does `lesionkit reproduce`.
#
# **Read next:** section 4.3 of the paper. You have seen all of it: go back to [the start](00_start_here.ipynb) with your own data.
