"""The lessons: each a function of a few sliders that draws what one idea of the paper does.

They return widgets; what they compute is the package's own, nothing is made up for show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lesionkit.calibration import fit_isotonic, fit_temperature, outcomes, reliability
from lesionkit.detection import FitConfig, detect
from lesionkit.distance_maps import euclidean_map, geodesic_map
from lesionkit.labels import gaussian_heatmap
from lesionkit.matching import match_points
from lesionkit.metrics import CasePoints, precision_recall
from lesionkit.placement import jitter
from lesionkit.widgets.cases import ShownCase
from lesionkit.widgets.lesson import Choice, Drawing, Lesson, Line, Slider, chart, picture

HIT, FALSE, MISSED, SOFT = "#2fbf8f", "#f2725c", "#4aa8ff", "#8a94a3"


def fused_peaks(separation: float = 2.0, sigma: float = 1.5) -> Lesson:
    """Two peaks come closer: when do they fuse for the eye, the paper's loop, the joint refit? (section 3.2)."""
    shape = (41, 31, 31)

    def draw(separation: float, ratio: float, sigma: float) -> Drawing:
        middle, half = np.array([20.2, 15.1, 14.8]), 0.5 * separation * sigma
        points = middle + half * np.array([[-1.0, 0, 0], [1.0, 0, 0]])
        heatmap = gaussian_heatmap(points, shape, sigma, weights=[1.0, ratio])
        found = {mode: detect(heatmap, FitConfig(sigma=sigma, mode=mode)) for mode in ("joint", "paper")}
        x = np.linspace(0, shape[0] - 1, 241)
        peak = (2 * np.pi * sigma**2) ** -1.5
        each = [a * peak * np.exp(-0.5 * ((x - p[0]) / sigma) ** 2) for p, a in zip(points, (1.0, ratio), strict=True)]
        total = each[0] + each[1]
        inner = total[1:-1]
        n_seen = int(((inner > total[:-2]) & (inner > total[2:]) & (inner > 1e-6)).sum())
        lines = [
            Line(x=x, y=total, name="heatmap", colour=SOFT, width=3),
            Line(x=x, y=each[0], name="lesion 1", colour=MISSED, dash=(5, 4)),
            Line(x=x, y=each[1], name="lesion 2", colour=HIT, dash=(5, 4)),
        ]
        profile = chart(
            "Along the line through both",
            lines,
            x=(8, 32),
            y=(0, 1.1 * float(total.max())),
            xlabel="voxels",
            ylabel="mass per voxel",
            size=(440, 290),
        )
        panels = [profile]
        slab = heatmap[:, :, 15]
        for mode, name in (("joint", "joint refit"), ("paper", "paper's loop")):
            one = found[mode]
            rings = [
                (float(m[0]), float(m[1]), 2 * sigma, 2 * sigma, HIT if len(one) == 2 else FALSE, False) for m in one.mu
            ]
            crosses = [(float(p[0]), float(p[1]), "#ffffff") for p in points]
            title = f"{name}: {len(one)} found, alpha {', '.join(f'{a:.2f}' for a in one.alpha[:4])}"
            panels.append(picture(title, warm=slab / slab.max(), rings=rings, crosses=crosses, width=300))
        return Drawing(
            panels, f"{separation:.2f} sigma apart: the profile has {n_seen} {'maximum' if n_seen == 1 else 'maxima'}"
        )

    return Lesson(
        draw,
        title="When do two peaks fuse?",
        separation=Slider(label="apart (sigma)", value=separation, low=0.5, high=5.0, step=0.05),
        ratio=Slider(label="mass of the second", value=1.0, low=0.2, high=1.0, step=0.05),
        sigma=Slider(label="sigma (voxels)", value=sigma, low=1.0, high=2.5, step=0.05),
    )


def label_kinds(case: ShownCase, *, lesion: int = 0, half: int = 20) -> Lesson:
    """Draw Gaussian, Euclidean and geodesic labels of the same clicks over the MRI (section 2, table 1)."""
    if case.image is None or case.truth is None:
        raise ValueError("case must have an image and true points")
    image = np.asarray(case.image.data, dtype=np.float32)
    tissue = image[image > 0]
    normal = (image - tissue.mean()) / tissue.std()
    centre = np.rint(case.truth[lesion]).astype(int)
    box = tuple(slice(max(c - half, 0), min(c + half, n)) for c, n in zip(centre, image.shape, strict=True))
    corner = np.array([part.start for part in box])
    patch, level = normal[box], centre[2] - corner[2]
    shape = patch.shape
    near = case.truth - corner
    near = near[((near > -8) & (near < np.array(shape) + 8)).all(1)]

    def draw(sigma: float, radius: float, contrast: float) -> Drawing:
        maps = {
            "Gaussian heatmap": gaussian_heatmap(near, shape, sigma),
            "Euclidean distance": euclidean_map(near, shape, radius=radius),
            "geodesic distance": geodesic_map(near, patch, radius=radius, contrast=contrast),
        }
        grey = patch[:, :, level]
        panels = [
            picture(
                "MRI and the points",
                grey=grey,
                crosses=[(*p[:2], "#ffd24a") for p in near if abs(p[2] - level) < 2],
                width=230,
            )
        ]
        panels += [
            picture(name, grey=grey, warm=one[:, :, level] / max(float(one.max()), 1e-9), width=230)
            for name, one in maps.items()
        ]
        inside = near[((near > -0.5) & (near < np.array(shape) - 0.5)).all(1)]
        mass = float(maps["Gaussian heatmap"].sum())
        note = f"Mass of the Gaussian label: {mass:.2f} for {len(inside)} points in the cube: mass is count"
        return Drawing(panels, f"{note}. The sums of the other two mean nothing.")

    return Lesson(
        draw,
        title="Three labels for the same clicks",
        sigma=Slider(label="sigma (voxels)", value=1.5, low=0.75, high=4.0, step=0.05),
        radius=Slider(label="radius (voxels)", value=6.0, low=2.0, high=12.0, step=0.5),
        contrast=Slider(label="contrast (geodesic)", value=1.0, low=0.0, high=4.0, step=0.1),
    )


def click_jitter(*, clicks: int = 200, seed: int = 0) -> Lesson:
    """Experts do not click the same voxel twice: what a network learns from such labels is a wider Gaussian."""
    shape, centre = (31, 31), np.array([15.0, 15.0])
    wild = np.random.default_rng(seed).bit_generator.state

    def draw(sd: float, sigma: float) -> Drawing:
        rng = np.random.default_rng()
        rng.bit_generator.state = wild  # the same clicks, nearer or farther
        points = jitter(np.repeat(centre[None], clicks, axis=0), sd, (1.0, 1.0), rng=rng)
        mean = gaussian_heatmap(points, shape, sigma, border="truncate") / clicks
        exact = gaussian_heatmap(centre[None], shape, sigma, border="truncate")
        expected = gaussian_heatmap(centre[None], shape, float(np.hypot(sigma, sd)), border="truncate")
        top = float(exact.max())
        crosses = [(float(p[0]), float(p[1]), "#ffffff") for p in points[:60]]
        x = np.arange(shape[0]) - centre[0]
        lines = [
            Line(x=x, y=exact[:, 15], name="one exact click", colour=SOFT),
            Line(x=x, y=mean[:, 15], name=f"mean of {clicks} clicks", colour=HIT, fill=True),
            Line(x=x, y=expected[:, 15], name="sqrt(sigma² + sd²)", colour=FALSE, dash=(5, 4)),
        ]
        panels = [
            picture("60 of the clicks", warm=exact / top, crosses=crosses, width=260),
            picture("mean label: what MSE makes of them", warm=mean / top, width=260),
            chart(
                "Through the middle",
                lines,
                x=(-15, 15),
                y=(0, 1.1 * top),
                xlabel="voxels",
                ylabel="mass",
                size=(420, 270),
            ),
        ]
        share = float(mean.max()) / top
        return Drawing(
            panels, f"Peak of the mean label: {share:.0%} of an exact one; its mass is still {mean.sum():.2f}"
        )

    return Lesson(
        draw,
        title="Click jitter",
        sd=Slider(label="error of a click (voxels)", value=1.0, low=0.0, high=3.0, step=0.1),
        sigma=Slider(label="sigma of the label", value=1.5, low=0.75, high=3.0, step=0.05),
    )


def threshold_trade_off(cases: Sequence[CasePoints], *, threshold: float = 0.4) -> Lesson:
    """Move the threshold on alpha along the precision-recall curve (section 3.2, step 5)."""
    table = precision_recall(cases)

    def draw(threshold: float) -> Drawing:
        kept = table[table["threshold"] >= threshold]
        at = kept.iloc[int(kept["threshold"].to_numpy().argmin())] if len(kept) else table.iloc[0]
        curve = Line(x=table["recall"].to_numpy(), y=table["precision"].to_numpy(), colour=MISSED)
        dot = Line(x=[at["recall"]], y=[at["precision"]], points=6, colour=FALSE, name=f"F1 {at['f1']:.2f}")
        rates = [
            Line(x=table["threshold"].to_numpy(), y=table[name].to_numpy(), name=name.replace("f1", "F1"))
            for name in ("precision", "recall", "f1")
        ]
        panels = [
            chart(
                "Precision against recall",
                [curve, dot],
                x=(0, 1.02),
                y=(0, 1.02),
                xlabel="recall",
                ylabel="precision",
                size=(360, 300),
            ),
            chart(
                "All against the threshold",
                rates,
                x=(0, 1.1),
                y=(0, 1.02),
                xlabel="threshold on alpha",
                ylabel="rate",
                marks=[{"x": threshold, "text": f"{threshold:.2f}"}],
                size=(440, 300),
            ),
        ]
        counts = f"{at['tp']:.0f} hits, {at['fp']:.0f} false alarms, {at['fn']:.0f} missed"
        return Drawing(
            panels, f"{counts}: precision {at['precision']:.2f}, recall {at['recall']:.2f}, F1 {at['f1']:.2f}"
        )

    return Lesson(
        draw,
        title="What the threshold trades",
        threshold=Slider(label="threshold", value=threshold, low=0.1, high=1.0, step=0.01),
    )


def reliability_before_and_after(validation: Sequence[CasePoints], test: Sequence[CasePoints]) -> Lesson:
    """Is alpha a probability? Before the fit, after it, and recalibrated on validation (section 4.2, figure 2a)."""
    maps = {"none": None, "temperature": fit_temperature(validation), "isotonic": fit_isotonic(validation)}

    def draw(recalibrated: str, bins: float) -> Drawing:
        panels, said = [], []
        for which, name in (("unfitted", "before the fit: window sums"), ("fitted", "after the fit: alpha")):
            found = outcomes(test, which=which)  # type: ignore[arg-type]  # a literal
            change = maps[recalibrated]
            if change is not None and which == "fitted":
                found = found.replaced(change(found.probability))
            curve = reliability(found, bins=int(bins))
            x, y, low, high = curve.confidence, curve.accuracy, curve.low, curve.high
            bars = [Line(x=[a, a], y=[b, c], colour=SOFT, width=1.4) for a, b, c in zip(x, low, high, strict=True)]
            ideal = Line(x=[0, 1], y=[0, 1], colour=SOFT, dash=(5, 4))
            dots = Line(x=x, y=y, points=5, colour=HIT if which == "fitted" else FALSE)
            title = f"{name}; ECE {curve.ece:.3f}"
            panels.append(
                chart(
                    title,
                    [ideal, *bars, dots],
                    x=(0, 1.02),
                    y=(0, 1.02),
                    xlabel="predicted probability",
                    ylabel="share that is a lesion",
                    size=(380, 330),
                )
            )
            said.append(f"{curve.ece:.3f}")
        return Drawing(panels, f"Expected calibration error on test: {said[0]} before the fit, {said[1]} after it")

    return Lesson(
        draw,
        title="Reliability before and after the fit",
        recalibrated=Choice(label="alpha recalibrated on validation by", value="none", options=tuple(maps)),
        bins=Slider(label="bins", value=8, low=3, high=15, step=1),
    )


def gating(*, seed: int = 3) -> Lesson:
    """Who is matched with whom: the gate before or after the assignment (section 4.1)."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(6, 54, (9, 2))
    predicted = np.concatenate([true[:7] + rng.normal(0, 2.6, (7, 2)), rng.uniform(6, 54, (3, 2))])

    def draw(distance: float, gate: str) -> Drawing:
        one = match_points(predicted, true, max_distance=distance, gate=gate)  # type: ignore[arg-type]  # a literal
        hit_p, hit_t = one.matched_predicted, one.matched_true
        rings = [(*p, 1.3, 1.3, HIT if hit_p[n] else FALSE, False) for n, p in enumerate(predicted.tolist())]
        rings += [(*t, distance, distance, SOFT, True) for t in true.tolist()]
        crosses = [(*t, "#ffffff" if hit_t[n] else MISSED) for n, t in enumerate(true.tolist())]
        segments = [(*predicted[p], *true[t], HIT) for p, t in one.pairs.tolist()]
        panel = picture(
            "white and blue +: true; rings: predicted; dashed: the gate",
            rings=rings,
            crosses=crosses,
            segments=segments,
            width=430,
        )
        counts = f"{one.tp} hits, {one.fp} false alarms, {one.fn} missed"
        reach = np.linspace(0.5, 15, 30)
        lines = [
            Line(
                x=reach,
                y=[match_points(predicted, true, max_distance=float(d), gate=g).f1 for d in reach],
                name=f"gate {g} the assignment",
            )
            for g in ("before", "after")
        ]
        f1 = chart(
            "F1 depends on the gate",
            lines,
            x=(0, 15),
            y=(0, 1),
            xlabel="gate (mm)",
            ylabel="F1",
            marks=[{"x": distance, "text": f"{distance:g} mm"}],
            size=(400, 300),
        )
        return Drawing([panel, f1], f"{counts}: F1 {one.f1:.2f}")

    return Lesson(
        draw,
        title="Matching within a gate",
        distance=Slider(label="gate (mm)", value=6.0, low=0.5, high=15.0, step=0.5),
        gate=Choice(label="gate", value="before", options=("before", "after")),
    )


def sigma_on_a_case(case: ShownCase) -> Lesson:
    """Draw the label of a case for any sigma: lesions that overlap become one hill (section 3.1)."""
    if case.truth is None:
        raise ValueError("case must have true points")
    truth, heatmap = case.truth, case.heatmap
    height = int(np.rint(np.median(truth[:, 2])))
    apart = np.linalg.norm((truth[:, None] - truth) * heatmap.spacing, axis=2)
    nearest = (apart + np.diag(np.full(len(truth), np.inf))).min(1)
    image = None if case.image is None else case.image.data[:, :, height]

    def draw(sigma: float) -> Drawing:
        label = gaussian_heatmap(truth, heatmap.shape, sigma)
        found = detect(label, FitConfig(sigma=sigma))  # exact: close fits are two lesions, not one of a network's
        width_mm = sigma * float(np.mean(heatmap.spacing))
        slab = label[:, :, height]
        order = np.sort(nearest)
        lines = [Line(x=order, y=np.arange(1, len(order) + 1), colour=MISSED)]
        share = float((nearest < 2 * width_mm).mean())
        panels = [
            picture(f"label, slice {height}", grey=image, warm=slab / max(float(slab.max()), 1e-9), width=320),
            chart(
                "Distance to the nearest other lesion",
                lines,
                x=(0, float(order.max()) + 2),
                y=(0, len(order) + 1),
                xlabel="mm",
                ylabel="lesions",
                marks=[{"x": 2 * width_mm, "text": "2 sigma"}],
                size=(420, 320),
            ),
        ]
        note = f"{len(truth)} points, mass {label.sum():.2f}; {share:.0%} have a neighbour within 2 sigma"
        return Drawing(panels, f"{note}; the detector takes the label apart into {len(found)} lesions")

    return Lesson(
        draw,
        title="Sigma and the spacing of lesions",
        sigma=Slider(label="sigma (voxels)", value=1.5, low=0.75, high=5.0, step=0.25),
    )
