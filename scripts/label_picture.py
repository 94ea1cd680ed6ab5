"""Draw the four labels of a lesion over the MRI: `python scripts/label_picture.py docs/labels.png` (needs kaleido)."""

from __future__ import annotations

import sys

import numpy as np

from lesionkit import gaussian_heatmap
from lesionkit.distance_maps import euclidean_map, geodesic_map
from lesionkit.figures import labels_figure
from lesionkit.io import read_points, read_volume
from lesionkit.preprocessing import prepare
from lesionkit.samples import sample


def main() -> None:
    """Take the lesion of the FLAIR sample whose size is nearest to 150 voxels."""
    _, case = sample("flair")
    if case.points is None or case.mask is None:
        raise SystemExit("the sample has no points or no mask")
    image, mask, table = read_volume(case.images[0]), read_volume(case.mask), read_points(case.points)
    places = table[["x", "y", "z"]].to_numpy(float)
    points = image.to_voxel(places)
    (normalised,), _ = prepare([image])
    labels = {
        "heatmap, sigma 1.5": gaussian_heatmap(points, image.shape, 1.5),
        "Euclidean map": euclidean_map(points, image.shape),
        "geodesic map": geodesic_map(points, normalised),
        "segmentation": (mask.data > 0).astype(np.float32),
    }
    at = places[int((table["size_vox"] - 150).abs().to_numpy().argmin())]
    volumes = {name: image.with_data(label) for name, label in labels.items()}
    figure = labels_figure(image, volumes, at_mm=at, points_mm=places)
    figure.update_layout(paper_bgcolor="white", font_color="#333").write_image(sys.argv[1], scale=1.5)


if __name__ == "__main__":
    main()
