# %% [markdown]
# # 3 · Detection: fit, subtract, repeat
#
# **Time:** 25 minutes to read and play, half a minute to run · **Paper:** section 3.2, equations 2 and 3
#
# After this notebook you will be able to
#
# 1. write the paper's detector in ten lines of NumPy and SciPy,
# 2. see where its loop goes wrong on neighbouring lesions, and what a joint refit does about it,
# 3. compare it with the usual way: threshold and connected components.

# %% tags=["parameters"]
SCENE = "pair_2_1"  # two equal peaks, 2 sigma apart; others are in lesionkit.widgets.cases.SCENES

# %%
import numpy as np

from lesionkit import FitConfig, detect, fit_steps
from lesionkit.components import ComponentConfig, detect_components
from lesionkit.figures import alpha_figure
from lesionkit.matching import match_points
from lesionkit.widgets import ExplorerWidget, lessons
from lesionkit.widgets.cases import SCENE_SIGMA, sample_case
from lesionkit.widgets.notebook import begin

FAST = begin()
scene = sample_case(SCENE)
heatmap = np.asarray(scene.heatmap.data)
print(scene.title, heatmap.shape, "mass", round(float(heatmap.sum()), 2))

# %% [markdown]
# ## Ten lines
#
# 1. **Locate** the highest voxel. 2. **Estimate** alpha as the sum over a window. 3. **Fit** $\alpha\,\mathcal{N}(\mu, \sigma^2)$
# in the window, sigma known. 4. **Subtract**, and repeat while alpha is not tiny.
#
# **Predict.** There are two lesions of mass 1. How many will the loop below find, and with which alpha?

# %% tags=["exercise"]
from scipy.optimize import curve_fit


def by_hand(heatmap, sigma, min_alpha=0.1, half=3):
    residual, found = heatmap.astype(float).copy(), []
    grid = np.moveaxis(np.indices(residual.shape), 0, -1)

    def gaussian(x, alpha, *mu):
        return alpha * np.exp(-0.5 * ((x - mu) ** 2).sum(-1) / sigma**2) / (2 * np.pi * sigma**2) ** (len(mu) / 2)

    while len(found) < 10:
        peak = np.unravel_index(residual.argmax(), residual.shape)
        window = tuple(slice(max(p - half, 0), p + half + 1) for p in peak)
        # solution
        start = (residual[window].sum(), *peak)
        (alpha, *mu), _ = curve_fit(gaussian, grid[window].reshape(-1, 3), residual[window].ravel(), start)
        if alpha < min_alpha:
            break
        residual -= gaussian(grid, alpha, *mu)
        # end
        found.append((alpha, *mu))
    return np.array(found)


# %% tags=["check"]
found = by_hand(heatmap, SCENE_SIGMA)
assert found.shape[1] == 4, "each lesion is (alpha, i, j, k)"
ours = detect(heatmap, FitConfig(sigma=SCENE_SIGMA, mode="paper", min_alpha=0.1))
np.testing.assert_allclose(found[0], [ours.alpha[0], *ours.mu[0]], atol=1e-3)
print(found.round(2))

# %% [markdown]
# **Explain.** Each row is alpha and the voxel position: three lesions instead of two. The first fit sits between the two and takes
# too much of both. What is left on either side looks like two more. The loop never looks back.
#
# ## Ours: the loop
#
# This is the source that runs, not a copy. It is section 3.2, and one line more: the refit that makes it joint.

# %%
import inspect
import textwrap

from lesionkit.detection.search import Search

print(textwrap.dedent(inspect.getsource(Search.run)))

# %% [markdown]
# ## Step by step
#
# `fit_steps` is a generator: the loop above as a plain `for`, one record a step.

# %%
for step in fit_steps(heatmap, FitConfig(sigma=SCENE_SIGMA)):
    refits = ", ".join(f"{refit.step + 1}: {refit.alpha:.2f}" for refit in step.refits)
    print(
        f"{step.number + 1}  peak {step.value:.4f} at {tuple(map(int, step.voxel))}  alpha {step.alpha:.2f}  {step.status:7}"
        f"  {'refit to ' + refits if refits else ''}"
    )

# %% [markdown]
# **Explain.** In joint mode, lesions within 5 sigma of each other are fitted again *together, on the original map*, whenever
# a new one is found. The second step corrects the first.
#
# **Move.** Step through it; switch *search* to *paper's loop* and back; watch the residual (press `r`): blue is where too
# much was subtracted.

# %%
explorer = scene.explorer()
explorer.go_to_step(0, 2)
ExplorerWidget(explorer, title=scene.title, overlay="residual")

# %% [markdown]
# ## When do two peaks fuse?
#
# **Predict.** At which distance does the profile lose its second maximum? At which does each detector?

# %%
lessons.fused_peaks()

# %% [markdown]
# **Explain.** Two equal Gaussians have two maxima only beyond 2 sigma. A *search for maxima* can do no better. A fit can: the
# joint refit resolves pairs from about 1.25 sigma on, where noise allows. The paper's loop finds a third one until they are more
# than 4 sigma apart.
#
# ## A whole case

# %%
case = sample_case("gad")
found = detect(case.heatmap.data, case.config)
matching = match_points(found.filter(case.threshold).mu, case.truth, max_distance=6.0, spacing=case.heatmap.spacing)
order = np.argsort(-found.alpha)
hits = match_points(found.mu[order], case.truth, max_distance=6.0, spacing=case.heatmap.spacing).matched_predicted
alpha_figure(found.alpha[order], threshold=case.threshold, status=["TP" if hit else "FP" for hit in hits])

# %% [markdown]
# **Explain.** Green bars are true lesions, orange ones are not. What is doubtful has a small alpha: notebook 4 asks how good a
# probability it is.
#
# ## The usual way: threshold, then connected components
#
# Binarise the map at tau, call each connected component a lesion. One number, tau, must do two jobs: *find* weak lesions (low
# tau) and *separate* neighbours (high tau).
#
# **Predict.** For the pair above: is there any tau that finds two?

# %%
sigma, peak = SCENE_SIGMA, (2 * np.pi * SCENE_SIGMA**2) ** -1.5
for tau in (0.05, 0.2, 0.4, 0.8, 1.1):
    pair = detect_components(heatmap, ComponentConfig(threshold=tau * peak))
    real = detect_components(
        case.heatmap.data, ComponentConfig(threshold=tau * (2 * np.pi * case.config.sigma**2) ** -1.5)
    )
    hits = match_points(real.points, case.truth, max_distance=6.0, spacing=case.heatmap.spacing)
    print(
        f"tau {tau:4.2f} of a peak: pair -> {len(pair)} found;  case -> {hits.tp} hits, {hits.fp} false, {hits.fn} missed"
    )
print(
    f"fit and subtract:       pair -> {len(detect(heatmap, FitConfig(sigma=sigma)))} found;  "
    f"case -> {matching.tp} hits, {matching.fp} false, {matching.fn} missed"
)

# %% [markdown]
# **Explain.** Only a tau above the height of a whole lesion splits the pair: it would miss every lesion of the case. A low one
# finds noise. Fit-and-subtract needs no tau; alpha is thresholded afterwards, when neighbours are apart already.
#
# ## With your own heatmap
#
# ```python
# from lesionkit import FitConfig, detect, read_volume
#
# mine = read_volume("my_heatmap.nii.gz")
# found = detect(mine.data, FitConfig.for_predictions("estimate"))  # sigma estimated from the map's isolated peaks
# found.to_frame(mine.affine)
# ```
#
# ## Summary
#
# Fit-and-subtract turns a map into lesions with a position between voxels and a mass. Its greedy loop fails on neighbours;
# refitting them together does not.
#
# **Read next:** [4 · Calibration](04_calibration.ipynb), [the page on detection](../docs/detection.md), section 3.2.
