"""The page of a case: everything is inside, nothing can break out, and what it holds is what was found."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lesionkit.components import ComponentConfig, detect_components
from lesionkit.detection import FitConfig, detect
from lesionkit.explorer import Explorer
from lesionkit.labels import gaussian_heatmap
from lesionkit.pipeline import CaseResult, write_result
from lesionkit.volume import Volume
from lesionkit.widgets.page import export_page

AFFINE = np.array([[2.0, 0, 0, -10], [0, 1, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
POINTS = np.array([[9.0, 10, 8], [14, 17, 11]])
HEATMAP = gaussian_heatmap(POINTS, (20, 24, 18), 1.25, weights=[1.0, 0.6])
IMAGE = np.add.outer(np.add.outer(np.arange(20.0), np.arange(24.0)), np.arange(18.0)).astype(np.float32) + 50
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{data}} & \u2028"


def page_of(folder: Path, *, explorer: Explorer | None = None, **options: Any) -> str:
    """Write the page of a small case."""
    shown = explorer or Explorer(
        HEATMAP, image=IMAGE, truth=POINTS[:1], affine=AFFINE, config=FitConfig(sigma=1.25), inline_s=float("inf")
    )
    return export_page(shown, folder / "page.html", **{"title": "case 1", "sigmas": (1.25,)} | options).read_text()


def embedded(page: str, name: str) -> bytes:
    """Bytes of the script element with that id."""
    found = re.search(rf'id="lk-{name}">([^<]*)<', page)
    assert found is not None
    return base64.b64decode(found[1])


def data_of(page: str) -> dict[str, Any]:
    """Read what the page's script works on."""
    data: dict[str, Any] = json.loads(gzip.decompress(embedded(page, "data")))
    return data


class Structure(HTMLParser):
    """Collects elements, attributes and visible text."""

    def __init__(self, page: str) -> None:
        """Parse a page."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note a text, except scripts and styles."""
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text.append(data)


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    structure = Structure(page)
    assert page.startswith("<!doctype html>")
    assert "plotly" not in page.lower()
    for tag, attributes in structure.tags:
        assert tag not in ("link", "iframe", "object")
        assert "src" not in attributes
    policy = next(a["content"] for t, a in structure.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert not re.search(r"\{\{(title|css|js|data|image|facts)\}\}", page)


def test_title_facts_truth_and_warning_are_on_the_page(tmp_path: Path) -> None:
    text = " ".join(Structure(page_of(tmp_path, facts={"checkpoint": "flair-7"})).text)
    for wanted in (
        "case 1",
        "checkpoint flair-7",
        "against 1 known",
        "within 6 mm",
        "Not a medical device",
        "lesionkit ",
    ):
        assert wanted in text
    blind = Explorer(HEATMAP, config=FitConfig(sigma=1.25), inline_s=float("inf"))
    assert "truth is not known" in page_of(tmp_path, explorer=blind)


def test_text_from_files_cannot_break_out(tmp_path: Path) -> None:
    plain = Structure(page_of(tmp_path))
    attacked = Structure(page_of(tmp_path, title=EVIL, facts={EVIL: EVIL}))
    count = [sum(tag == "script" for tag, _ in structure.tags) for structure in (plain, attacked)]
    assert count[0] == count[1]
    assert "img" not in {tag for tag, _ in attacked.tags}
    assert "{{data}}" in " ".join(attacked.text)


def test_volumes_come_back_from_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    scene = data_of(page)["state"]["scene"]
    levels = np.frombuffer(gzip.decompress(embedded(page, "heat")), "<u2").reshape(scene["shape"])
    shown = levels / 65535 * (scene["heat_high"] - scene["heat_low"]) + scene["heat_low"]
    np.testing.assert_allclose(shown, HEATMAP, atol=0.01 * HEATMAP.max())
    sheet = np.asarray(Image.open(io.BytesIO(embedded(page, "image"))).convert("L"))
    ni, nj, nk = scene["shape"]
    slices = [sheet[(k // scene["mosaic"]) * nj :, (k % scene["mosaic"]) * ni :][:nj, :ni].T for k in range(nk)]
    grey = scene["grey"][0] + np.stack(slices, axis=-1) / 255 * (scene["grey"][1] - scene["grey"][0])
    assert np.abs(grey - IMAGE).mean() < 2.0


def test_large_volumes_are_thinned_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lesionkit.widgets.packing.MOST_VOXELS", 2000)
    page = page_of(tmp_path)
    scene = data_of(page)["state"]["scene"]
    assert (scene["stride"], scene["shape"], scene["spacing"]) == (2, [10, 12, 9], [4.0, 2.0, 6.0])
    assert "one voxel in 2" in page


def test_the_same_input_gives_the_same_page(tmp_path: Path) -> None:
    assert page_of(tmp_path) == page_of(tmp_path)


def test_each_axis_may_have_its_own_sigma(tmp_path: Path) -> None:
    explorer = Explorer(HEATMAP, config=FitConfig(sigma=(1.2, 1.25, 1.3)), inline_s=float("inf"))
    searches = data_of(page_of(tmp_path, explorer=explorer, sigmas=None))["searches"]
    assert [(s["sigma"], s["mode"]) for s in searches] == [([1.2, 1.25, 1.3], "joint"), ([1.2, 1.25, 1.3], "paper")]
    with pytest.raises(ValueError, match="sigmas go with a sigma that is one number"):
        page_of(tmp_path, explorer=explorer)
    with pytest.raises(ValueError, match="must be positive"):
        page_of(tmp_path, sigmas=(-1.0,))


def result_of(heatmap: np.ndarray, *, components: bool) -> CaseResult:
    volume = Volume(heatmap, AFFINE)
    found = (
        detect_components(heatmap, ComponentConfig(threshold=0.02))
        if components
        else detect(heatmap, FitConfig(sigma=1.25))
    )
    return CaseResult(
        source=volume, image=volume.with_data(IMAGE), heatmap=volume, detections=found, threshold=0.02, checkpoint="net"
    )  # fmt: skip


TRUTH = pd.DataFrame(Volume(HEATMAP, AFFINE).to_mm(POINTS), columns=["x", "y", "z"])


@pytest.mark.parametrize("components", [False, True])
@pytest.mark.parametrize("truth", [None, TRUTH.assign(size_vox=["n/a", 7]), TRUTH.iloc[:0]])
@pytest.mark.parametrize("heatmap", [HEATMAP, np.zeros_like(HEATMAP)])
def test_report_of_a_case_opens_at_the_end_and_says_no_nan(tmp_path: Path, components, truth, heatmap) -> None:
    result = result_of(heatmap, components=components)
    page = write_result(result, tmp_path, "case", truth=truth)["report.html"].read_text(encoding="utf-8")
    said = " ".join(Structure(page).text)
    assert "nan" not in said.lower()
    assert "20 x 24 x 18 voxels of 2 x 1 x 3 mm" in said
    assert ("connected components" if components else "expected count") in said
    state, trajectory = data_of(page)["state"], data_of(page)["searches"][0]["trajectory"]
    assert state["scene"]["score"] == ("score" if components else "alpha")
    assert state["frame"]["cursor"] == len(trajectory["status"]) - 2
    lesions = len(trajectory["start"]) if components else len(trajectory["details"])
    assert lesions == len(result.detections)
    if components and lesions:
        radius = 2 * np.array(trajectory["sigma"]) * state["scene"]["spacing"]
        np.testing.assert_allclose(radius, 5.0)
    if truth is not None and len(truth):
        assert state["frame"]["truth_sizes"] == [None, 7]
        np.testing.assert_allclose(state["frame"]["truth"], POINTS)
