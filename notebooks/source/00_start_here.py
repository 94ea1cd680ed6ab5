# %% [markdown]
# # 0 · Start here: find lesions from points
#
# **Time:** 10 minutes to read and play, half a minute to run · **Paper:** the whole of it, from above
#
# After this notebook you will be able to
#
# 1. say what goes in (points), what a network learns (a heatmap) and what comes out (lesions with a probability),
# 2. watch the detector take a heatmap apart, step by step,
# 3. tell what the threshold on that probability does.
#
# Nothing here is a medical device. Anatomy and skull-stripping are those of a real MRI template, the lesions in it are simulated:
# so the truth is known exactly.

# %% tags=["parameters"]
SAMPLE = "gad"  # or "flair"
IMAGE = None  # a FLAIR of your own (NIfTI), for the last section

# %%
from lesionkit.widgets import ExplorerWidget
from lesionkit.widgets.cases import own_case, sample_case
from lesionkit.widgets.notebook import begin

FAST = begin()
case = sample_case(SAMPLE)
print(case.title, case.heatmap.shape, "voxels of", case.heatmap.spacing, "mm;", len(case.truth), "true lesions")

# %% [markdown]
# ## The idea in five lines
#
# | step | what happens | paper | notebook |
# |---|---|---|---|
# | label | an expert clicks once on each lesion; each click becomes a Gaussian of mass 1 | 3.1 | [1](01_labels.ipynb) |
# | train | a U-Net learns to predict the sum of these Gaussians from the MRI | 3.1, 4.1 | [2](02_training.ipynb) |
# | detect | find the maximum, fit one Gaussian, subtract it, repeat; its mass is alpha | 3.2 | [3](03_detection.ipynb) |
# | judge | alpha is the probability that the lesion exists: is it a good one? | 4.2 | [4](04_calibration.ipynb) |
# | transfer | the network that found lesions learns to outline them from few masks | 3.3, 4.3 | [5](05_transfer.ipynb) |

# %% [markdown]
# ## Look inside a detection
#
# **Predict.** The map below has one bright hill a lesion. The detector takes the highest hill first. Will all *hits* (true
# lesions) come before the first *false alarm*?
#
# **Move.** Click into the view. Arrow keys step through *maximum, fit, subtract*; with Shift a whole iteration; the space bar
# plays. Drag the dashed line in the bars. Click a row of the table. Press `r` for the residual.

# %%
explorer = case.explorer()
explorer.go_to_step(0, 1)
ExplorerWidget(explorer, title=case.title)

# %% [markdown]
# **Explain.** Each bar is one fitted Gaussian, in the order in which they were found; its height is alpha, the mass that was
# fitted. Green is a hit, orange a false alarm, grey below the threshold; a white + is a true lesion that was found, a dashed blue
# ring one that was missed. Here all hits come first; that is no law, since the order is by the height of the hill. Two lesions are
# large: their hills are broader than one Gaussian, what a fit leaves of them looks like new hills, and these are taken back into
# the same lesion (dotted bars).
#
# ## The threshold
#
# **Predict.** Raising the threshold removes bars from below. Which of precision and recall can only fall?
#
# **Move.** The same state can be moved by code; every view of it follows.

# %%
for threshold in (0.1, 0.3, 0.5, 0.7):
    explorer.set_threshold(threshold)
    score = explorer.score
    print(f"alpha >= {threshold:.1f}: {score.tp} hits, {score.fp} false alarms, {score.fn} missed, F1 {score.f1:.2f}")

# %% [markdown]
# **Explain.** (F1 is the harmonic mean of precision, the share of what is reported that is right, and recall, the share of lesions
# that is found.) Fewer lesions are reported, so recall can only fall; precision mostly rises, because what is doubtful goes first.
# The threshold of a network is chosen on validation patients, never on those that are scored in the end.
#
# ### Exercise: the best threshold of this case
#
# Find a threshold at which F1 is largest, by trying each alpha there is.


# %% tags=["exercise"]
def best_threshold(explorer):
    best, best_f1 = None, -1.0
    for alpha in explorer.detections.alpha:
        # solution
        explorer.set_threshold(alpha)
        if explorer.score.f1 > best_f1:
            best, best_f1 = float(alpha), explorer.score.f1
        # end
    return best, best_f1


# %% tags=["check"]
best, best_f1 = best_threshold(explorer)
assert best is not None, "best_threshold must return a threshold"
assert best_f1 == max(explorer.curve.f1), f"there is a better one: F1 {max(explorer.curve.f1):.2f}"
print(f"F1 {best_f1:.2f} at {best:.2f}, chosen on the very case it is scored on: too good to be true")

# %% [markdown]
# ## With your own image
#
# Set `IMAGE` above to a FLAIR of your own and run this cell: the shipped network predicts the map. Without one, a real patient is
# shown, if `lesionkit fetch ljubljana` has brought some (public data, with lesions drawn by experts; they are not part of the
# kit). Any orientation and spacing will do; skull-stripped images work best.

# %%
mine = own_case(IMAGE)
ExplorerWidget(mine.explorer(), title=mine.title) if mine else None

# %% [markdown]
# The same view as a page of its own: `lesionkit dashboard my_FLAIR.nii.gz`; as one HTML file to send around:
# `lesionkit export my_FLAIR.nii.gz -o page.html`.
#
# ## Summary
#
# Points become a heatmap, a network predicts one, fit-and-subtract takes it apart, and each lesion comes with a probability.
#
# **Read next:** [1 · Labels](01_labels.ipynb), and sections 1 and 2 of the paper.
