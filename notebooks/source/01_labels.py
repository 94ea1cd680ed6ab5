# %% [markdown]
# # 1 · Labels: from clicks to maps
#
# **Time:** 20 minutes to read and play, half a minute to run · **Paper:** section 3.1, equation 1; section 2 and table 1 for
# the other labels
#
# After this notebook you will be able to
#
# 1. turn points into a Gaussian heatmap, and say why its mass is the number of lesions,
# 2. choose sigma, knowing how far apart real lesions are,
# 3. tell a heatmap from distance maps and masks, and what an imprecise click does to each.

# %% tags=["parameters"]
SIGMA = 1.5  # voxels, a standard deviation

# %%
import numpy as np

from lesionkit import gaussian_heatmap, points_from_mask
from lesionkit.figures import volume_figure
from lesionkit.io import read_volume
from lesionkit.samples import real_patients, sample
from lesionkit.widgets import lessons
from lesionkit.widgets.cases import sample_case
from lesionkit.widgets.notebook import begin

FAST = begin()
case = sample_case("flair")
points = case.truth
print(len(points), "points, the first at voxel", points[0].round(1))

# %% [markdown]
# ## One Gaussian a click
#
# The label is a sum of Gaussians, one a point, each of mass 1 (equation 1):
# $$h(x) = \sum_i \mathcal{N}(x;\, \mu_i,\, \sigma^2 I)$$
#
# **Predict.** What is the sum over all voxels of the label of this case?

# %%
label = gaussian_heatmap(points, case.heatmap.shape, SIGMA)
print(
    f"sum {label.sum():.3f}, maximum {label.max():.4f}, voxels above a tenth of it {(label > 0.1 * label.max()).sum()}"
)

# %%
volume_figure(case.image, case.heatmap.with_data(label), at_mm=case.heatmap.to_mm(points[3:4])[0])

# %% [markdown]
# **Explain.** The sum is the number of points: mass is count. That is what later makes the fitted mass alpha a probability:
# a network that is half sure predicts half a Gaussian.
#
# ## Sigma
#
# **Predict.** Sigma grows from 0.75 to 5 voxels. The mass stays. When does the detector begin to lose lesions?
#
# **Move** the slider; watch the distances between neighbouring lesions beside it.

# %%
lessons.sigma_on_a_case(case)

# %% [markdown]
# **Explain.** Lesions nearer than about 2 sigma have one common maximum. Our detector resolves them for a while (notebook 3 shows
# how), but not for ever. And this is a label, exact to the last digit; a network's map is not. A small sigma keeps lesions apart
# but asks the network to be right within a voxel; a large one forgives imprecise clicks. The paper tries 1.0, 1.25 and 1.5 voxels.
#
# ## Mass is count, also at the border
#
# A Gaussian that the border cuts would lose mass. `border="renormalise"` (the default) scales what is inside;
# `border="truncate"` leaves it cut, as a crop of a larger map is.

# %%
corner = [[0.0, 0.0, 0.0]]
for border in ("renormalise", "truncate"):
    print(border, round(float(gaussian_heatmap(corner, (20, 20, 20), SIGMA, border=border).sum()), 3))

# %% [markdown]
# ### Exercise: the label by hand
#
# Write the label of one point in NumPy, without looking at ours: a product of three one-dimensional Gaussians.


# %% tags=["exercise"]
def one_gaussian(point, shape, sigma):
    result = np.ones(())
    for x, n in zip(point, shape):
        # solution
        line = np.exp(-0.5 * ((np.arange(n) - x) / sigma) ** 2)
        result = result[..., None] * (line / line.sum())
        # end
    return result


# %% tags=["check"]
mine = one_gaussian((9.3, 10.1, 8.8), (20, 20, 20), 1.5)
assert mine.shape == (20, 20, 20), "the label has the shape of the volume"
np.testing.assert_allclose(mine, gaussian_heatmap([(9.3, 10.1, 8.8)], (20, 20, 20), 1.5), atol=1e-6)
print("the same as ours")

# %% [markdown]
# ## Other labels
#
# The paper compares heatmaps with distance maps: 1 at the click, 0 at some radius, by the straight way (Euclidean) or by the
# cheapest way through the image, on which an edge costs extra (geodesic).
#
# **Predict.** Which of the three maps follows the outline of a lesion that is not round?
#
# **Move** the radius and the contrast.

# %%
lessons.label_kinds(case, lesion=10)

# %% [markdown]
# **Explain.** The geodesic map stops at edges. Neither distance map counts: where two of them meet, the larger value is taken,
# so their sum means nothing.
#
# ## Imprecise clicks
#
# **Predict.** Two hundred experts click on one lesion with an error of one voxel. The network sees the MRI only, so it
# learns the *mean* of all labels. How high is its peak, how large its mass?

# %%
lessons.click_jitter()

# %% [markdown]
# **Explain.** The mean of Gaussians around jittered centres is a wider Gaussian, of variance `sigma² + sd²`: mass 1 as before.
# The count survives imprecise clicks; the width does not.
#
# ## From masks to points
#
# Where masks exist, the paper takes the centre of mass of each connected component (section 4.1). How large are they, how far
# apart, and how many labels overlap? Two Gaussians overlap visibly when they are nearer than 4 sigma.
#
# The simulated sample was made after the statistics of real masks. Real ones are counted beside it if `lesionkit fetch ljubljana`
# has brought them.

# %%
_, files = sample("flair")
masks = {"simulated sample": [files.mask]}
if patients := real_patients():
    masks["real patients"] = sorted(patients[0].parent.glob("*/lesions.nii.gz"))
for name, paths in masks.items():
    sizes, nearest = [], []
    for path in paths:
        mask = read_volume(path)
        lesions = points_from_mask(mask.data)
        apart = np.linalg.norm((lesions.points[:, None] - lesions.points) * mask.spacing, axis=2)
        nearest += [*(apart + np.diag(np.full(len(apart), np.inf))).min(1)]
        sizes += [*lesions.sizes]
    print(f"{name}: {len(sizes)} lesions in {len(paths)} masks")
    print(f"  voxels, 10 %, 50 %, 90 % of them: {np.percentile(sizes, [10, 50, 90]).round()}")
    print(f"  mm to the nearest other one: {np.percentile(nearest, [10, 50, 90]).round(1)}")
    for sigma in (1.0, 1.25, 1.5, 2.5):
        print(f"  sigma {sigma:4.2f}: {np.mean(np.array(nearest) < 4 * sigma):4.0%} within 4 sigma of another")

# %% [markdown]
# **Explain.** In the masks of the 20 real patients (2096 lesions of a median of 16 voxels of 1 mm), 9, 18 and 28 % have another one
# within 4 sigma, for a sigma of 1, 1.25 and 1.5 mm. So a detector must cope with neighbours, the more so the wider the label.
#
# ## With your own points
#
# ```python
# from lesionkit.io import import_points, read_volume
#
# image = read_volume("my_FLAIR.nii.gz")
# clicks = import_points("F.mrk.json", image=image)  # 3D Slicer, napari, TSV, CSV or a label image
# label = gaussian_heatmap(image.to_voxel(clicks.frame[["x", "y", "z"]].to_numpy()), image.shape, sigma=1.5)
# ```
#
# ## Summary
#
# A heatmap is a sum of Gaussians of mass 1: it counts, it forgives imprecise clicks, and sigma decides which neighbours stay
# apart.
#
# **Read next:** [2 · Training](02_training.ipynb), [3 · Detection](03_detection.ipynb), and section 3.1 of the paper.
