# %% [markdown]
# # 4 · Calibration: is alpha a probability?
#
# **Time:** 25 minutes to read and play, half a minute to run · **Paper:** section 3.2 (step 5), section 4.2, figure 2
#
# After this notebook you will be able to
#
# 1. match detections with the truth, and say what the gate decides,
# 2. read a reliability diagram, and compute its error,
# 3. choose a threshold on validation patients, also one that comes with a guarantee.
#
# The detections are those of the shipped network in 60 simulated patients that it has never seen: 30 to choose with
# (validation), 30 to judge with (test).

# %% tags=["parameters"]
MISSED_AT_MOST = 0.3  # share of a patient's lesions, for the guarantee

# %%
import numpy as np

from lesionkit.calibration import outcomes, reliability
from lesionkit.conformal import control_risk
from lesionkit.figures import precision_recall_figure
from lesionkit.metrics import choose_threshold, precision_recall, score_points
from lesionkit.samples import sample_candidates
from lesionkit.uncertainty import entropy, retention
from lesionkit.widgets import lessons
from lesionkit.widgets.notebook import begin

FAST = begin()
patients = sample_candidates()
validation, test = patients["validation"], patients["test"]
for name, cases in patients.items():
    print(
        f"{name}: {len(cases)} patients, {sum(len(c.true) for c in cases)} lesions, {sum(len(c.score) for c in cases)} candidates"
    )

# %% [markdown]
# ## Who found whom
#
# A detection is a hit if it can be paired with a true lesion within a distance: the gate, 6 mm here. Pairs are one to one.
#
# **Predict.** Widening the gate makes more hits. Can it ever make *fewer*, if the gate is applied after the assignment?
#
# **Move** the gate.

# %%
lessons.gating()

# %% [markdown]
# **Explain.** Gating *after* the assignment lets a far pair block a near one: the assignment minimises the total distance over
# all pairs, those included that are thrown away later. Gating *before* (our default) makes as many hits as there can be.
#
# ## The threshold
#
# **Predict.** Where on the precision-recall curve does F1 peak: at its corner, or nearer to one axis?

# %%
lessons.threshold_trade_off(validation)

# %%
chosen = choose_threshold(validation)
precision_recall_figure(precision_recall(validation), chosen=chosen)

# %%
for name, cases in patients.items():
    score = score_points(cases, chosen).pooled
    print(
        f"{name:10} at alpha >= {chosen:.2f}: precision {score.precision:.2f}, recall {score.recall:.2f}, F1 {score.f1:.2f}"
    )

# %% [markdown]
# **Explain.** The threshold is chosen on validation. `choose_threshold` refuses patients of the test split: a threshold chosen
# where it is judged always looks too good.
#
# ## Reliability
#
# If alpha is a probability, then of all candidates with alpha near 0.7 about 70 % are lesions. The paper's point (figure 2a):
# before the fit, the sum over the window is no such thing; after it, alpha is nearer to one.
#
# **Predict.** Will the dots before the fit lie above or below the diagonal? **Move** the bins, and recalibrate.

# %%
lessons.reliability_before_and_after(validation, test)

# %% [markdown]
# **Explain.** Dots above the diagonal: the network is too modest; its alphas near 0.9 are lesions nearly always. Bars are 95 %
# intervals: few candidates make wide bars. For this network the fit does not bring alpha nearer to a probability, other than in
# the paper: with ten bins the error is about 0.10 before it and 0.12 after it. Its maps have little background that a window could
# add up, and of the broad peak of a large lesion the fit counts only what looks like the label's Gaussian. Recalibration helps: it
# changes alpha by one rising curve, fitted on validation, and the error falls to 0.03 to 0.05 on test. The order of candidates,
# and with it the precision-recall curve, stays.
#
# ### Exercise: the expected calibration error
#
# Mean gap between predicted probability and share of lesions, over ten bins of equal width, weighted by their counts.


# %% tags=["exercise"]
def calibration_error(probability, hit, bins=10):
    number = np.minimum((probability * bins).astype(int), bins - 1)
    error = None
    # solution
    error = 0.0
    for b in range(bins):
        inside = number == b
        if inside.any():
            error += inside.mean() * abs(probability[inside].mean() - hit[inside].mean())
    # end
    return error


# %% tags=["check"]
found = outcomes(test)
mine, theirs = calibration_error(found.probability, found.hit), reliability(found, bins=10).ece
assert mine is not None, "calibration_error must return a number"
np.testing.assert_allclose(mine, theirs, atol=1e-9)
print(f"ECE {mine:.4f} over {len(found)} candidates, {found.hit.mean():.0%} of them lesions")

# %% [markdown]
# ## Uncertainty
#
# The entropy of alpha, in bits, is 0 where the network is sure and 1 where it is even. A good uncertainty lets a reader look
# at the doubtful cases only (section 4.2, figure 2b).
#
# **Predict.** Set the most uncertain half aside. How much does accuracy among the rest rise?

# %%
uncertain = entropy(found.probability)
curve = retention(uncertain, (found.probability >= 0.5) == found.hit)
for kept in (1.0, 0.8, 0.6, 0.4, 0.2):
    print(f"the most certain {kept:4.0%}: {curve.at(kept):.1%} right")

# %% [markdown]
# **Explain.** One forward pass gives it. MC dropout, the usual way, needs many: each drops other channels, and the spread of
# the maps is the uncertainty.
#
# **Predict.** The network misses the smallest lesion of this case. Will the spread there be large?

# %%
import torch

from lesionkit.checkpoints import load_checkpoint
from lesionkit.mc_dropout import McConfig, sample_maps
from lesionkit.samples import sample
from lesionkit.training import load_case

network, case = load_checkpoint("gad"), load_case(sample("gad")[1])
dropout = McConfig(samples=2 if FAST else 10, batch=2)
maps = sample_maps(
    network.model, case.image.float(), torch.as_tensor(case.mask).numpy(), dropout, window=network.card.window
)
peaks = np.rint(case.points).astype(int)
for (i, j, k), size in zip(peaks, case.sizes, strict=True):
    around = maps[:, i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2].max((1, 2, 3))
    print(f"lesion of {size:3.0f} voxels: peak of the map {around.mean():.2f}, standard deviation {around.std():.2f}")

# %% [markdown]
# **Explain.** It is not: where the network sees nothing it is sure that there is nothing, by either measure. Uncertainty sorts what
# was found; it does not find what was missed.
#
# ## A threshold with a guarantee
#
# "At most 30 % of a new patient's lesions are missed, on average": conformal risk control chooses the highest threshold that
# keeps such a promise, from validation patients alone, whatever the network is worth.
#
# **Predict.** Is that threshold higher or lower than the one of best F1?

# %%
for promised in (MISSED_AT_MOST, 0.2, 0.1):
    promise = control_risk(validation, promised)
    print(f"at most {promised:.0%} missed: threshold {promise.threshold:.2f} (best F1: {chosen:.2f})")
    for name, cases in patients.items():
        per_patient = [case.match(promise.threshold) for case in cases]
        missed = np.mean([m.fn / m.n_true if m.n_true else 0.0 for m in per_patient])
        print(f"  {name:10}: {missed:.1%} missed in a patient, {np.mean([m.fp for m in per_patient]):.2f} false alarms")

# %% [markdown]
# **Explain.** This network misses a tenth at its best F1, so a promise of 30 % lets the threshold rise until there is no false
# alarm; a promise of 10 % brings it down. The promise holds on average over validation sets and new patients, if they come from
# the same place. One test set may lie above it by chance, as these 30 patients do for 30 %.
#
# ## With your own results
#
# `lesionkit evaluate COHORT -o DIR` writes every candidate of every case to `DIR/candidates.tsv`; `CasePoints` takes such
# tables, one a patient.
#
# ## Summary
#
# Alpha is fitted, matched, thresholded, and checked: a probability is only one if the shares agree. Choose on validation, judge
# on test.
#
# **Read next:** [5 · Transfer](05_transfer.ipynb), section 4.2 of the paper, and A. Angelopoulos et al., *Conformal Risk
# Control*, ICLR 2024.
