"""The picture page: everything is inside, nothing can break out, the numbers are those of matching."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lesionkit.matching import match_points
from lesionkit.report import render_report
from lesionkit.volume import Volume

AFFINE = np.array([[2.0, 0, 0, -10], [0, 1, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{plotly}} & \u2028"


def volumes() -> tuple[Volume, Volume]:
    """Make an image with a bright part and a heatmap with one peak."""
    data = np.zeros((10, 12, 8), np.float32)
    data[2:8, 3:9, 2:6] = np.arange(6, dtype=np.float32)[:, None, None] + 5
    heat = np.zeros_like(data)
    heat[4, 5, 3] = 0.05
    return Volume(data, AFFINE), Volume(heat, AFFINE)


def lesions() -> pd.DataFrame:
    """Four candidates, not sorted."""
    index = np.array([[4, 5, 3], [7, 8, 5], [4, 6, 3], [2, 3, 2]])
    x, y, z = volumes()[0].to_mm(index).T
    return pd.DataFrame({"x": x, "y": y, "z": z, "alpha": [0.4, 0.9, 0.8, 0.1], "note": ["a", "b", "c", "d"]})


def truth() -> pd.DataFrame:
    """Two lesions: one near two candidates, one near none."""
    x, y, z = volumes()[0].to_mm(np.array([[4, 5, 3], [9, 0, 7]])).T
    return pd.DataFrame({"x": x, "y": y, "z": z, "size_vox": [12, 300]})


def render(**changes: Any) -> str:
    """Render the small case with some arguments changed."""
    image, heatmap = volumes()
    arguments: dict[str, Any] = {"image": image, "heatmap": heatmap, "lesions": lesions(), "truth": truth()}
    arguments |= {"threshold": 0.3, "title": "case 1", "facts": {"Checkpoint": "flair-1"}} | changes
    return render_report(arguments.pop("image"), arguments.pop("heatmap"), arguments.pop("lesions"), **arguments)


def embedded(page: str, name: str) -> str:
    """Text of the script element with that id."""
    found = re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]


def page_data(page: str) -> dict[str, Any]:
    """Read what the page's script works on."""
    data: dict[str, Any] = json.loads(embedded(page, "report-data"))
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


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = render()
    structure = Structure(page)
    assert page.startswith("<!doctype html>")
    assert page.count("plotly.js v") == 1
    for tag, attributes in structure.tags:
        assert tag not in ("link", "iframe", "object")
        assert "src" not in attributes
    policy = next(a["content"] for t, a in structure.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert not re.search(r"\{\{(title|css|js|data|plotly|table)\}\}", page)


def test_title_facts_version_and_warning_are_on_the_page() -> None:
    text = " ".join(Structure(render(facts={"Image": "a.nii.gz", "checkpoint": "flair-7"})).text)
    for wanted in ("case 1", "a.nii.gz", "checkpoint: flair-7", "Not a medical device", "lesionkit "):
        assert wanted in text
    assert "checkpoint: not stated" in render(facts={})


def test_text_from_files_cannot_break_out() -> None:
    evil = lesions().assign(note=EVIL).rename(columns={"note": EVIL + "name"})
    plain = Structure(render())
    attacked = Structure(render(title=EVIL, facts={EVIL: EVIL, "checkpoint": EVIL}, lesions=evil))
    count = [sum(tag == "script" for tag, _ in structure.tags) for structure in (plain, attacked)]
    assert count[0] == count[1]
    assert "img" not in {tag for tag, _ in attacked.tags}
    assert "{{plotly}}" in " ".join(attacked.text)
    assert render(title=EVIL).count("plotly.js v") == 1


def test_json_has_no_character_that_ends_a_script() -> None:
    assert not re.search("[<>&\u2028\u2029]", embedded(render(), "report-data"))


def test_volumes_come_back_in_eight_bits() -> None:
    page = render()
    data = page_data(page)
    assert data["shape"] == [10, 12, 8]
    unpacked = {}
    for name in ("image-data", "heat-data"):
        raw = gzip.decompress(base64.b64decode(embedded(page, name)))
        unpacked[name] = np.frombuffer(raw, np.uint8).reshape(data["shape"])
    image, heatmap = volumes()
    grey = data["image_low"] + unpacked["image-data"] / 255 * (data["image_high"] - data["image_low"])
    np.testing.assert_allclose(grey, image.data, atol=0.05)
    np.testing.assert_allclose(unpacked["heat-data"] / 255 * data["heat_max"], heatmap.data, atol=1e-3)
    assert data["box"] == [[0, 0, 0], [10, 12, 8]]


def test_candidates_are_sorted_and_placed_in_voxels() -> None:
    data = page_data(render())
    assert [lesion["alpha"] for lesion in data["lesions"]] == [0.9, 0.8, 0.4, 0.1]
    assert data["lesions"][0]["ijk"] == [7, 8, 5]
    assert data["start"] == [7, 8, 5]
    np.testing.assert_allclose(data["truth"][1]["ijk"], [9, 0, 7])
    assert [target["size"] for target in data["truth"]] == [12, 300]


def test_at_every_threshold_the_page_matches_as_python_does() -> None:
    rng = np.random.default_rng(4)
    predicted, true = rng.uniform(-12, 12, (25, 3)), rng.uniform(-12, 12, (15, 3))
    frame = pd.DataFrame(predicted, columns=list("xyz")).assign(alpha=np.linspace(1, 0.1, 25))
    data = page_data(render(lesions=frame, truth=pd.DataFrame(true, columns=list("xyz")), max_distance_mm=5.0))
    partner = np.full(25, -1)
    changes = iter([*data["matches"], [26, 0, 0]])
    change = next(changes)
    for count in range(1, 26):
        while change[0] <= count:
            partner[change[1]] = change[2]
            change = next(changes)
        pairs = match_points(predicted[:count], true, max_distance=5.0).pairs
        assert [[n, p] for n, p in enumerate(partner.tolist()) if p >= 0] == pairs.tolist()


def test_an_image_in_another_orientation_is_turned_and_points_stay() -> None:
    image, heatmap = volumes()
    # New axes (k, i, j), the last two flipped.
    back = np.array([[0.0, -1, 0, 9], [0, 0, -1, 11], [1, 0, 0, 0], [0, 0, 0, 1]])
    turned = [Volume(v.data.transpose(2, 0, 1)[:, ::-1, ::-1].copy(), v.affine @ back) for v in (image, heatmap)]
    plain, other = page_data(render()), page_data(render(image=turned[0], heatmap=turned[1]))
    assert other["shape"] == plain["shape"]
    np.testing.assert_allclose(other["affine"], plain["affine"])
    assert other["lesions"] == plain["lesions"]
    assert embedded(render(image=turned[0], heatmap=turned[1]), "image-data") == embedded(render(), "image-data")


def test_large_volumes_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lesionkit.report._MOST_VOXELS", 200)
    page = render()
    data = page_data(page)
    assert data["shape"] == [5, 6, 4]
    assert data["spacing"] == [4, 2, 6]
    assert data["lesions"][0]["ijk"] == [3.5, 4, 2.5]
    assert "one voxel in 2" in page


def test_the_table_lists_candidates_then_true_lesions() -> None:
    page = render()
    rows = re.findall(r"<tr data-(lesion|truth)=\"(\d+)\"", page)
    assert rows == [("lesion", "0"), ("lesion", "1"), ("lesion", "2"), ("lesion", "3"), ("truth", "1"), ("truth", "0")]
    assert '<th scope="col" class="text">note</th>' in page


def test_without_truth_no_rates_are_shown() -> None:
    page = render(truth=None)
    assert page_data(page)["truth"] is None
    assert 'id="precision"' not in page
    assert "truth is not known" in page


@pytest.mark.parametrize("known", [None, truth().iloc[:0], truth().drop(columns="size_vox")])
def test_nothing_detected_is_a_page_too(known: pd.DataFrame | None) -> None:
    _, heatmap = volumes()
    flat = heatmap.with_data(np.zeros_like(heatmap.data))
    page = render(lesions=lesions().iloc[:0], heatmap=flat, image=flat, truth=known)
    assert page_data(page)["lesions"] == []
    assert page_data(page)["heat_max"] == 0


def test_unknown_sizes_are_no_numbers() -> None:
    data = page_data(render(truth=truth().assign(size_vox=["n/a", 7])))
    assert [target["size"] for target in data["truth"]] == [None, 7]


def test_the_same_input_gives_the_same_page() -> None:
    assert render() == render()


def test_inputs_that_do_not_fit_are_refused() -> None:
    image, heatmap = volumes()
    with pytest.raises(ValueError, match="another grid"):
        render(heatmap=Volume(heatmap.data, np.eye(4)))
    with pytest.raises(ValueError, match=r"lesions: .*\['alpha'\]"):
        render(lesions=lesions().drop(columns="alpha"))
    with pytest.raises(ValueError, match="truth: got NaN"):
        render(truth=truth().assign(x=np.nan))
    with pytest.raises(ValueError, match="lesions: got text"):
        render(lesions=lesions().assign(x="left"))
    with pytest.raises(ValueError, match="threshold"):
        render(threshold=np.nan)
    with pytest.raises(ValueError, match="image: got no voxels, NaN"):
        render(image=image.with_data(np.full_like(image.data, np.nan)))
