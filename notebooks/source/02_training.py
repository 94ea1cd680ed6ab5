# %% [markdown]
# # 2 · Training: a network learns the map
#
# **Time:** 15 minutes to read, 4 minutes to run on two cores · **Paper:** sections 3.1 and 4.1
#
# After this notebook you will be able to
#
# 1. simulate a cohort with known lesions and train a detector on its points,
# 2. read a loss that is compared with predicting nothing, and see overfitting coming,
# 3. resume a training that was stopped.
#
# The network here is tiny and sees few patients, so that you can watch. The shipped ones took 40 minutes.

# %% tags=["parameters"]
PATIENTS, STEPS, SIGMA, SEED = 12, 180, 1.25, 0

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lesionkit.checkpoints import load_checkpoint
from lesionkit.figures import training_figure
from lesionkit.model import ModelConfig
from lesionkit.pipeline import detect_lesions
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig, train
from lesionkit.widgets import ExplorerWidget
from lesionkit.widgets.cases import sample_case
from lesionkit.widgets.live import Watch
from lesionkit.widgets.notebook import begin

FAST = begin()
if FAST:
    PATIENTS, STEPS = 5, 12
work = Path(tempfile.mkdtemp(prefix="lesionkit_"))

# %% [markdown]
# ## A cohort
#
# Simulated enhancing lesions on a real brain template, with vessels and other bright things that are none. Split by patient,
# 60/20/20.

# %%
cohort = simulate_cohort(SimulationConfig.preset("gad"), PATIENTS, work / "cohort", seed=SEED)
print({name: len(cohort.split(name)) for name in ("train", "validation", "test")}, "patients,", cohort.channels)

# %% [markdown]
# ## Train, and watch
#
# The loss is the squared error summed over the brain, shown as a share of what *predicting nothing* costs. The film strip is one
# slice of a validation patient.
#
# **Predict.** Lesions fill less than a thousandth of the brain. What will the network learn first? How will the strip begin?

# %%
config = replace(
    TrainConfig.preset("cpu"),
    model=ModelConfig(levels=3, filters=8, max_filters=32, dropout=0.05, activation="exp"),
    steps=STEPS,
    validate_every=max(STEPS // 6, 2),
    validation_cases=2,
    threshold_cases=3,
    patch=(32, 32, 32),
    sigma=SIGMA,
    seed=SEED,
    workers=0,
)
watch = Watch(work / "first", stop_at=2 * STEPS // 3)
train(cohort, work / "first", config, progress=False, watchers=[watch])
print("stopped at step", watch.history[-1][0], "of", STEPS)

# %% [markdown]
# **Explain.** First the background: predicting nothing is right almost everywhere, and the ratio sits at 1. Then anything bright.
# Only then what makes a lesion one. Each Gaussian has a peak of $(2\pi\sigma^2)^{-3/2}$, far below 1, so labels are scaled to
# peak near 1 for the loss; otherwise an exponential output would hardly move.
#
# ## Overfitting
#
# **Predict.** Train on *one* patient instead. Which of the two curves below goes on improving?

# %%
one = replace(cohort, cases=(cohort.split("train")[0], *cohort.split("validation"), *cohort.split("test")))
alone = Watch(work / "one")
train(
    one,
    work / "one",
    replace(config, steps=max(STEPS // 2, 4), validate_every=max(STEPS // 8, 2)),
    progress=False,
    watchers=[alone],
)
table = pd.DataFrame(alone.history, columns=["step", "loss (one patient)", "F1 on validation"])
training_figure(table[["step", "loss (one patient)"]], step="step")

# %% [markdown]
# **Explain.** The loss on the one patient falls, the F1 on others need not follow. Lesions are rare, patches are cut around them,
# and a network soon knows the few it sees by heart. Augmentation moves image and *points* together and draws the label
# afterwards, so a rotated label is exact.
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
# **Explain.** A wider label is a lower and larger target: easier to hit, harder to take apart. The paper tries 1.0, 1.25 and 1.5.
#
# ## Resume
#
# The first training was stopped at two thirds of its way. One that is interrupted goes on from its last validation and sees the samples it would have seen.

# %%
watch = Watch(work / "first")
checkpoint = train(cohort, work / "first", config, resume=True, progress=False, watchers=[watch])
print("went on to step", watch.history[-1][0])

# %% [markdown]
# ## What it finds
#
# The network of four minutes beside the shipped one, on the sample case that neither has seen.

# %%
case = sample_case("gad")
from lesionkit.io import read_volume
from lesionkit.samples import sample

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
ExplorerWidget(mine, title="what four minutes of training see")

# %% [markdown]
# ## With your own cohort
#
# `lesionkit import` checks a folder of images and clicks and makes a cohort of it; `lesionkit train COHORT --from flair -o DIR`
# goes on from a shipped network; `--resume` goes on after an interruption.
#
# ## Summary
#
# Points, patches, a squared error: the network learns the background first, lesions last. Validation says when to stop.
#
# **Read next:** [3 · Detection](03_detection.ipynb), sections 3.1 and 4.1 of the paper.
