# %% [markdown]
# # 5 · Transfer: from points to outlines with few masks
#
# **Time:** 15 minutes to read, 4 minutes to run on two cores · **Paper:** section 3.3, section 4.3, tables 2 and 4
#
# After this notebook you will be able to
#
# 1. turn a detector that was trained on points into a segmenter,
# 2. compare it with training from scratch on the same few masks: 1, 5 and 10 % of the patients,
# 3. say what is transferred, and what a small table is worth.

# %% tags=["parameters"]
SHARES = (0.01, 0.05, 0.1)  # of the detector's training patients, whose masks may be used; as in the paper
STEPS, SEED = 40, 0

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.express as px

from lesionkit.checkpoints import load_checkpoint
from lesionkit.figures import STATUS_COLOURS
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig
from lesionkit.transfer import fine_tune, mask_subset, score_segmentation
from lesionkit.widgets.notebook import begin

FAST = begin()
detector = load_checkpoint("gad")
seen = detector.card.training["cohort"]["train"]
masks = {share: round(share * seen) for share in SHARES}
if FAST:
    masks, STEPS = {0.01: 2}, 3
print(
    f"{detector.name} was trained on {seen} patients with points.", *(f"{s:.0%}: {n} masks" for s, n in masks.items())
)

# %% [markdown]
# ## Points are cheap, outlines are not
#
# A click takes a second, an outline minutes. Suppose that points were set in all the patients the detector was trained on, but
# outlines drawn in 1, 5 or 10 % of them only. The detector must have learned what a lesion looks like; only its output has to
# change: from a heatmap (exponential) to a probability a voxel (sigmoid).
#
# Here the patients are new simulated ones, so few that this runs in minutes: as many with masks as the largest share wants, two
# to choose a threshold with (validation), four to judge with (test).

# %%
work = Path(tempfile.mkdtemp(prefix="lesionkit_"))
most = max(masks.values())
splits = [*["train"] * most, *["validation"] * 2, *["test"] * 4]
whole = simulate_cohort(SimulationConfig.preset("gad"), len(splits), work / "cohort", seed=SEED + 7)
cohort = replace(whole, cases=tuple(replace(case, split=split) for case, split in zip(whole.cases, splits)))
print({name: len(cohort.split(name)) for name in ("train", "validation", "test")}, "patients")

# %% [markdown]
# ## Pre-trained against scratch
#
# The same network, the same masks, the same number of steps; only the weights at the start differ. `mask_subset` keeps a random
# share of the training patients, and for one seed a smaller share is part of a larger one.
#
# **Predict.** With 4 masks: how far is the network from scratch behind the fine-tuned one? Which of the two gains more from 36?

# %%
base = replace(
    TrainConfig.preset("cpu"), model=detector.model.config, steps=STEPS, validate_every=STEPS, validation_cases=1,
    threshold_cases=2, patch=(32, 32, 32), batch_size=2, window=32, seed=SEED, workers=0, learning_rate=1e-3,
)  # fmt: skip
rows = []
for share, n in masks.items():
    few = mask_subset(cohort, n / most, seed=SEED)
    for start in ("detector", "scratch"):
        folder = work / f"{start}_{n}"
        path = fine_tune(few, folder, base, detector=detector if start == "detector" else None, progress=False)
        score = score_segmentation(load_checkpoint(path), cohort)
        rows.append(
            {
                "share": f"{share:.0%}",
                "masks": len(few.split("train")),
                "start": start,
                "F1 of voxels": score.dice,
                "Dice of a patient": score.patient_dice,
            }
        )
table = pd.DataFrame(rows)
table.round(2)

# %%
bars = table.assign(masks=table["share"] + ": " + table["masks"].astype(str) + " masks")
colours = {"detector": STATUS_COLOURS["TP"], "scratch": STATUS_COLOURS["FN"]}
figure = px.bar(
    bars, x="masks", y="F1 of voxels", color="start", barmode="group", range_y=(0, 1), color_discrete_map=colours,
    text_auto=".2f", template="plotly_white",
)  # fmt: skip
figure.update_xaxes(type="category", title="training patients with masks")
figure.update_layout(legend_title="weights at the start", width=800)
figure

# %% [markdown]
# **Explain.** The detector's features tell lesions from vessels before the first mask is seen, so a few masks and forty steps teach
# it where a lesion ends. The start from scratch is behind by more than a tenth. The number of masks hardly matters here: in
# forty steps of two patches, no network has seen much of 36 masks. The paper trains both to the end; then the masks count, and
# what is left of the gap with few of them is its result (table 2).
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
for n in gained.index:
    of = table[table["masks"] == n].set_index("start")["F1 of voxels"].fillna(0.0)
    assert np.isclose(gained[n], of["detector"] - of["scratch"]), f"for {n} masks: detector minus scratch is wanted"
print(gained.round(2).to_string())

# %% [markdown]
# ## What the table is worth
#
# Four test patients, one draw of the masks, one seed: an anecdote. Set `SEED = 1`, run it again, and see what moves: trust only
# differences that are larger than that. The paper repeats each share with several random subsets, and so does
# `lesionkit reproduce`.
#
# ## With your own masks
#
# ```python
# from lesionkit.io import read_cohort
#
# mine = read_cohort("my_cohort")  # what `lesionkit import` makes; the training patients need lesion masks
# few = mask_subset(mine, 0.1, seed=0)  # or all of them
# path = fine_tune(few, "segmenter", TrainConfig.preset("cpu"), detector=load_checkpoint("flair"))
# ```
#
# Real patients with masks by experts: `lesionkit fetch ljubljana -o ljubljana`, then `lesionkit import`.
#
# ## Summary
#
# What is learned from points carries over to outlines: with the same few masks and steps, a network that has learned to detect
# outlines lesions better than one from scratch.
#
# **Read next:** sections 3.3 and 4.3 of the paper. You have seen all of it: go back to [the start](00_start_here.ipynb) with your
# own data.
