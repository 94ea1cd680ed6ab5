"""The numbers that the paper reports, in percent: mean and standard deviation over three runs (or random subsets)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Value = tuple[float, float]
"""Mean and standard deviation."""

DETECTION: Mapping[tuple[str, str], Mapping[str, Value]] = MappingProxyType(
    {
        ("segmentation", "CC"): {
            "f1": (85.4, 0.02), "precision": (85.3, 1.10), "recall": (85.5, 1.15),
            "small": (67.7, 3.58), "medium": (89.6, 2.35), "large": (97.3, 3.76),
        },
        ("euclidean", "CC"): {
            "f1": (80.6, 1.01), "precision": (92.6, 1.28), "recall": (71.4, 2.14),
            "small": (51.0, 3.28), "medium": (77.1, 1.94), "large": (89.3, 2.80),
        },
        ("geodesic", "CC"): {
            "f1": (73.7, 4.89), "precision": (81.0, 7.97), "recall": (67.8, 2.98),
            "small": (47.8, 2.81), "medium": (73.9, 3.90), "large": (83.8, 4.01),
        },
        ("heatmap", "CC"): {
            "f1": (83.9, 0.27), "precision": (80.9, 4.43), "recall": (87.3, 2.64),
            "small": (75.0, 5.75), "medium": (91.6, 1.74), "large": (95.6, 1.11),
        },
        ("heatmap", "Gaussian"): {
            "f1": (86.3, 0.24), "precision": (87.0, 1.89), "recall": (85.7, 1.44),
            "small": (70.4, 4.47), "medium": (90.7, 0.63), "large": (97.8, 1.11),
        },
    }
)  # fmt: skip
"""Tables 1 and 3: (label, method) -> rates; small, medium and large are recalls."""

_TRANSFER = """
100 none        70.5 0.31   85.4 0.02   85.3 1.10   85.5 1.15
1   none        60.7 2.48   69.7 5.92   79.0 6.47   62.7 7.69
1   1           67.2 0.71   85.4 0.62   83.9 1.74   87.0 2.40
1   1.25        67.6 1.31   84.5 0.38   86.0 0.67   83.1 1.32
1   1.5         67.2 1.51   85.0 0.50   83.6 1.01   86.6 1.10
1   euclidean   66.3 0.18   84.7 1.45   83.3 3.24   86.1 1.67
1   geodesic    59.9 1.44   77.9 4.36   85.6 7.33   71.7 3.49
5   none        67.1 1.07   81.7 0.80   84.5 1.74   79.2 2.08
5   1           68.9 0.006  86.2 0.002  87.8 0.16   84.6 0.61
5   1.25        69.1 0.31   84.9 0.49   86.4 1.83   83.5 0.80
5   1.5         69.5 0.54   84.5 0.73   82.7 3.63   86.6 2.59
5   euclidean   68.4 0.70   85.4 0.49   84.8 0.48   86.0 0.70
5   geodesic    62.8 1.68   83.2 1.40   85.5 2.08   81.0 1.57
10  none        70.2 0.85   84.3 0.77   83.9 0.75   84.7 1.09
10  1           69.3 0.36   85.4 0.53   85.8 2.57   85.1 2.69
10  1.25        69.2 0.32   84.9 0.99   84.9 2.36   84.8 0.68
10  1.5         69.6 0.45   85.0 0.80   83.0 1.27   87.1 1.32
10  euclidean   68.6 0.53   85.8 0.62   85.7 2.29   85.9 2.09
10  geodesic    64.0 0.38   83.2 0.20   85.8 0.84   80.8 0.93
"""


def _transfer() -> dict[tuple[float, str], dict[str, Value]]:
    table = {}
    for line in _TRANSFER.split("\n"):
        if line:
            percent, start, *numbers = line.split()
            values = [float(number) for number in numbers]
            pairs = zip(values[::2], values[1::2], strict=True)
            table[float(percent) / 100, start] = dict(zip(("dice", "f1", "precision", "recall"), pairs, strict=True))
    return table


TRANSFER: Mapping[tuple[float, str], Mapping[str, Value]] = MappingProxyType(_transfer())
"""Tables 2 and 4: (share of the masks, sigma or label of the detector, or ``none``) -> segmentation F1 (dice) and
detection rates."""
