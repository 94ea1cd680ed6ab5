# %% [markdown]
# # 2 · Training: a network learns the map
#
# **Time:** 15 minutes to read, 4 minutes to run on two cores · **Paper:** sections 3.1 and 4.1
#
# After this notebook you will be able to
#
# 1. simulate a cohort with known lesions and train a detector on its points,
# 2. read a loss that is compared with predicting nothing, and see overfitting coming,
# 3. say what sigma changes for the network,
# 4. resume a training that was stopped.
#
# The network here is tiny and sees few patients, so that you can watch. The shipped ones took an hour and more.

# %% tags=["parameters"]
PATIENTS, STEPS, SIGMA, SEED = 12, 150, 1.25, 0
SIGMAS = (1.0, 1.5, 2.5)  # voxels, for the comparison

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lesionkit.augment import AugmentConfig
from lesionkit.checkpoints import load_checkpoint
from lesionkit.io import read_volume
from lesionkit.model import ModelConfig
from lesionkit.pipeline import detect_lesions
from lesionkit.samples import sample
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig, load_case, train
from lesionkit.widgets import ExplorerWidget
from lesionkit.widgets.cases import sample_case
from lesionkit.widgets.live import Watch, compare_maps
from lesionkit.widgets.notebook import begin

FAST = begin()
if FAST:
    PATIENTS, STEPS, SIGMAS = 5, 6, (1.0, 2.5)
work = Path(tempfile.mkdtemp(prefix="lesionkit_"))

# %% [markdown]
# ## A cohort
#
# Simulated enhancing lesions on a real brain template, with vessels and other bright things that are none. Split by patient,
# 60/20/20. About ten lesions a patient, three times as many as usual, so that a dozen patients have enough to learn from.

# %%
settings = replace(SimulationConfig.preset("gad"), lesions=(10.0, 0.4))
cohort = simulate_cohort(settings, PATIENTS, work / "cohort", seed=SEED)
print({name: len(cohort.split(name)) for name in ("train", "validation", "test")}, "patients,", cohort.channels)

# %% [markdown]
# ## Train, and watch
#
# Patches are cut around lesions (70 %) and anywhere in the brain; the label of each is drawn from the points. The loss is the
# squared error summed over the brain, shown as a share of what *predicting nothing* costs: below the dashed line something has
# been learned. The film strip is one slice of a validation patient.
#
# **Predict.** Lesions fill about a thousandth of the brain. What will the network learn first? How will the strip begin?

# %%
config = replace(
    TrainConfig.preset("cpu"),
    model=ModelConfig(levels=3, filters=8, max_filters=32, dropout=0.05, activation="exp"),
    steps=STEPS,
    validate_every=max(STEPS // 6, 2),
    validation_cases=2,
    threshold_cases=2,
    sigma=SIGMA,
    seed=SEED,
    workers=0,
)
watch = Watch(work / "first", stop_at=2 * STEPS // 3)
train(cohort, work / "first", config, progress=False, watchers=[watch])
print("stopped at step", watch.history[-1][0], "of", STEPS)

# %% [markdown]
# **Explain.** First the background: nothing is right almost everywhere, and the loss comes down to that of predicting nothing.
# Then anything bright. Only then what makes a lesion one, and the loss goes below the line; well below takes longer than this
# notebook has. F1 rises before that: for a detection it is enough that lesions are *brighter in the map* than the rest. Each
# Gaussian has a peak of $(2\pi\sigma^2)^{-3/2}$, far below 1, so labels are scaled to peak near 1 for the loss; otherwise an
# exponential output would hardly move.
#
# ## Overfitting
#
# **Predict.** Train on *one* patient, as it is, without augmentation. The loss on two whole brains is followed: that of the
# patient, and that of another one. Which falls, and where does the other stop?

# %%
known, unknown = cohort.split("train")[0], cohort.split("validation")[0]
one = replace(cohort, cases=(known, *cohort.split("validation")))
alone = Watch(work / "one", cases={"the patient it is trained on": load_case(known), "another": load_case(unknown)})
as_it_is = AugmentConfig(rotation=0.0, shear=0.0, scale=(1.0, 1.0), flip=(False, False, False), intensity=0.0)
few = replace(config, steps=max(STEPS // 2, 4), validate_every=max(STEPS // 10, 2), augment=as_it_is)
train(one, work / "one", few, progress=False, watchers=[alone])
for name, losses in alone.losses.items():
    print(f"{name}: loss {losses[0]:.2f} -> {losses[-1]:.2f} of predicting nothing")

# %% [markdown]
# **Explain.** The patient's own loss goes on falling; that of the other one stays far above it, worse than predicting nothing, and
# F1 on others does not rise: a network soon knows ten lesions by heart. What helps is more patients, first of all, then
# augmentation. It moves image and *points* together and draws the label afterwards, so that the label of a rotated image is as
# exact as any other.
#
# ### Exercise: what sigma does to the target
#
# How high is the peak of a label Gaussian of mass 1, for a given sigma in voxels? (3-D)


# %% tags=["exercise"]
def peak_of_label(sigma):
    result = None
    # solution
    result = (2 * np.pi * sigma**2) ** -1.5
    # end
    return result


# %% tags=["check"]
assert peak_of_label(1.25) is not None, "peak_of_label must return a number"
assert np.isclose(peak_of_label(1.25), replace(config, sigma=1.25).peak), (
    "not quite: think of the normal density in 3-D"
)
for sigma in (1.0, 1.25, 1.5):
    print(
        f"sigma {sigma:4.2f}: peak {peak_of_label(sigma):.4f}; {peak_of_label(1.0) / peak_of_label(sigma):.1f} times lower than for 1.0"
    )

# %% [markdown]
# **Explain.** A wider label is lower and covers more voxels; its mass stays 1. The paper tries 1.0, 1.25 and 1.5.
#
# ## What sigma does to the training
#
# Three short trainings that differ in sigma only: the same patients, the same patches, the same weights at the start. The rings
# are true lesions.
#
# **Predict.** With which sigma does the loss fall fastest? With which are the lesions found best? That need not be the same.

# %%
networks, rows = {}, []
for sigma in SIGMAS:
    watch = Watch(work / f"sigma_{sigma:g}", quiet=True)
    short = replace(config, sigma=sigma, steps=max(2 * STEPS // 5, 4), validate_every=max(STEPS // 5, 2))
    path = train(cohort, work / f"sigma_{sigma:g}", short, progress=False, watchers=[watch])
    networks[f"sigma {sigma:g}"] = load_checkpoint(path)
    _, loss, f1 = watch.history[-1]
    rows.append({"sigma": sigma, "loss / nothing": loss, "F1 on validation": f1, "peak of a label": short.peak})
pd.DataFrame(rows).round(3)

# %%
compare_maps(networks, load_case(unknown))

# %% [markdown]
# **Explain.** A wide hill can be hit by half and still be half right, so its loss falls sooner; a narrow one must be hit to the
# voxel. But wide hills run into each other, and their tops say less about where a lesion is. The losses of two sigmas cannot be
# compared, their F1 can, and its order is another one; of sixty steps and two validation patients much of that is chance. On a
# larger cohort `lesionkit reproduce` compares sigmas.
#
# ## Resume
#
# The first training was stopped at two thirds of its way. One that is interrupted goes on from its last validation and sees the
# samples it would have seen. The film strip is that of the whole training, the curves begin where it went on.

# %%
watch = Watch(work / "first")
checkpoint = train(cohort, work / "first", config, resume=True, progress=False, watchers=[watch])
print("went on to step", watch.history[-1][0])

# %% [markdown]
# ## What it finds
#
# The network of these minutes beside the shipped one, on the sample case that neither has seen.

# %%
case = sample_case("gad")
images = [read_volume(path) for path in sample("gad")[1].images]
for name, source in (("yours", checkpoint), ("shipped", "gad")):
    network = load_checkpoint(source)
    result = detect_lesions(network, images)
    explorer = case.explorer()
    explorer.load(result.heatmap, image=result.image, truth=case.truth)
    explorer.set_threshold(result.threshold)
    explorer.wait()
    score = explorer.score
    print(f"{name:8} {score.tp} hits, {score.fp} false alarms, {score.fn} missed at alpha >= {result.threshold:.2f}")
    if name == "yours":
        mine = explorer

# %%
mine.go_to_step(0, 1)
ExplorerWidget(mine, title="what a minute of training sees")

# %% [markdown]
# ## With your own cohort
#
# `lesionkit import` checks a folder of images and clicks and makes a cohort of it; `lesionkit train COHORT --from flair -o DIR`
# goes on from a shipped network; `--resume` goes on after an interruption. To train *this* notebook on your patients, put
# `cohort = read_cohort("my_cohort")` (from `lesionkit.io`) in the place of `simulate_cohort`.
#
# ## Summary
#
# Points, patches, a squared error: the network learns the background first, lesions last. Validation says when to stop.
#
# **Read next:** [3 · Detection](03_detection.ipynb), sections 3.1 and 4.1 of the paper.
