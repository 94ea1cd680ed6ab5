"""The explorer in real browsers: keys, drags and clicks change pictures and charts; nothing complains or leaves."""

from __future__ import annotations

import csv
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect
from watching import PATIENCE, Watched, notebook_of

from lesionkit.detection import FitConfig
from lesionkit.explorer import Explorer, Trajectory
from lesionkit.labels import gaussian_heatmap
from lesionkit.matching import Gate
from lesionkit.samples import sample
from lesionkit.volume import Volume
from lesionkit.widgets.cases import ShownCase, sample_case
from lesionkit.widgets.dashboard import Served, served
from lesionkit.widgets.page import export_page

POINTS = np.array([(12.3, 14.0, 9.2), (24.1, 15.2, 10.4), (18.0, 27.5, 16.3), (29.2, 30.1, 15.0)])
ALPHA = np.array([1.0, 0.8, 0.55, 0.3])
SHAPE = (40, 44, 26)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def small_case() -> ShownCase:
    heatmap = gaussian_heatmap(POINTS, SHAPE, 1.25, weights=ALPHA)
    rng = np.random.default_rng(0)
    image = 100 + 10 * rng.standard_normal(SHAPE) + 4000 * heatmap
    return ShownCase(
        title="Four lesions",
        heatmap=Volume(heatmap, AFFINE),
        image=Volume(image.astype(np.float32), AFFINE),
        truth=POINTS[:3] + 0.3,
        config=FitConfig(sigma=1.25),
        threshold=0.2,
    )


SETUP = f"""
import numpy as np
from lesionkit import FitConfig, gaussian_heatmap
from lesionkit.widgets import explore
points, alpha = np.array({POINTS.tolist()}), {ALPHA.tolist()}
heatmap = gaussian_heatmap(points, {SHAPE}, 1.25, weights=alpha)
affine = np.diag([2.0, 2.0, 2.0, 1.0])
view = explore(heatmap, image=100 + 4000 * heatmap, truth=points[:3] + 0.3, affine=affine, config=FitConfig(sigma=1.25))
view
"""


def exercise(watched: Watched) -> None:
    """Use the view as a person would: the same on every host."""
    page = watched.page
    watched.wait_drawn()
    plane, bars, profile, score = ".lk-plane canvas", ".lk-bars", ".lk-profile canvas", page.locator(".lk-score")
    expect(score).to_contain_text("0 lesions kept so far")
    expect(score).to_contain_text("answer hidden")

    # a key steps: planes and charts follow
    start = [watched.pixels(s) for s in (plane, bars, profile)]
    page.locator(".lk").focus()
    page.keyboard.press("Shift+ArrowRight")
    watched.wait_for("cursor", "2")
    assert page.locator(".lk-status").inner_text().startswith("1 of ")
    stepped = [watched.pixels(s) for s in (plane, bars, profile)]
    assert all(a != b for a, b in zip(start, stepped, strict=True))

    # the residual is signed and differs from the map; going back gives the same picture again
    page.locator("select[data-name=overlay]").select_option("residual")
    residual = watched.pixels(plane)
    assert residual != stepped[0]
    page.locator("select[data-name=overlay]").select_option("heatmap")
    assert watched.pixels(plane) == stepped[0]

    # predict first: hits and misses are told when the answer is shown, of this moment, then at the end
    expect(score).to_contain_text("1 lesion kept so far")
    page.locator("input[data-name=answer]").check()
    expect(score).to_contain_text("2 missed so far", timeout=PATIENCE)
    assert watched.pixels(plane) != stepped[0]
    page.locator("input[data-name=answer]").uncheck()
    expect(score).to_contain_text("answer hidden", timeout=PATIENCE)
    page.locator(".lk").focus()
    page.keyboard.press("n")
    watched.wait_for("cursor", "5")
    page.keyboard.press("End")
    expect(score).to_have_text("3 hits1 false alarm0 missedprecision 0.75recall 1.00F1 0.86", timeout=PATIENCE)
    page.keyboard.press("Home")
    watched.wait_for("cursor", "-1")
    page.keyboard.press("a")
    watched.wait_for("cursor", "11")

    # a drag on the threshold line of the chart: the faint false alarm goes, then a hit, which a key finds again
    page.keyboard.press("End")
    watched.wait_for("cursor", page.locator("input[data-name=cursor]").get_attribute("max") or "")
    box, before = page.locator(bars).bounding_box(), watched.pixels(bars)
    top = float(page.locator(bars).get_attribute("aria-valuemax") or 1) * 1.1
    height = box["height"] - 54
    x, level = box["x"] + box["width"] - 40, lambda t: box["y"] + 10 + (1 - t / top) * height
    page.mouse.move(x, level(0.2))
    page.mouse.down()
    for t in np.linspace(0.2, 0.65, 6):
        page.mouse.move(x, level(t))
    page.mouse.up()
    expect(score).to_contain_text("2 hits0 false alarms1 missed", timeout=PATIENCE)
    assert float(page.locator("input[data-name=threshold]").input_value()) == pytest.approx(0.65, abs=0.03)
    assert watched.pixels(bars) != before
    page.locator(".lk").focus()
    page.keyboard.press("m")
    page.wait_for_function("z => document.querySelector('.lk').dataset.position.split(' ')[2] === z", arg="16.60")
    assert page.locator("tr.lk-fn").count() == 1

    # the table: sorted, saved; a click goes to a lesion, not to a step
    page.locator("button[data-name=x]").click()
    expect(page.locator("th:has(button[data-name=x])")).to_have_attribute("aria-sort", "descending")
    shown = [row.split("\t") for row in page.locator(".lk tbody tr").all_inner_texts()]
    column = [float(row[3].replace("−", "-")) for row in shown]
    assert column == sorted(column, reverse=True)
    with page.expect_download() as saved:
        page.get_by_role("button", name="save CSV").click()
    rows = list(csv.reader(Path(saved.value.path()).read_text().splitlines()))
    assert rows[0][:4] == ["#", "status", "alpha", "x mm"]
    assert [row[1] for row in rows[1:]] == [row[1] for row in shown]
    np.testing.assert_allclose([float(row[3]) for row in rows[1:]], column, atol=0.06)
    page.locator("tr[data-key=l2]").click()
    page.wait_for_function("document.querySelector('tr[aria-selected=true]')?.dataset.key === 'l2'")
    where = [float(v) for v in watched.read("position").split()]
    assert np.abs(np.array(where) - POINTS[2]).max() < 0.2
    assert watched.read("cursor") == page.locator("input[data-name=cursor]").get_attribute("max")

    # the wheel zooms all planes at the pointer, a drag with the right button changes the greys, one click undoes both
    whole = watched.pixels(plane)
    page.locator(plane).first.hover(position={"x": 90, "y": 80})
    page.locator(plane).first.focus()
    page.mouse.wheel(0, -100)
    watched.wait_for("zoom", "1.20")
    zoomed = watched.pixels(plane)
    page.mouse.down(button="right")
    page.mouse.move(*np.add([page.locator(plane).first.bounding_box()[k] for k in "xy"], (150, 60)).tolist(), steps=3)
    page.mouse.up(button="right")
    assert len({whole, zoomed, watched.pixels(plane)}) == 3
    page.get_by_role("button", name="whole image").click()
    watched.wait_for("zoom", "1.00")
    assert watched.pixels(plane) == whole

    # what can be pressed is listed
    page.locator(".lk").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next missed lesion")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()

    # a drag in a plane moves the crosshair, Page Up the slice
    area = page.locator(plane).first.bounding_box()
    page.mouse.move(area["x"] + 0.3 * area["width"], area["y"] + 0.4 * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + 0.6 * area["width"], area["y"] + 0.7 * area["height"], steps=5)
    page.mouse.up()
    moved = watched.read("position").split()
    assert moved[:2] != [f"{v:.2f}" for v in where[:2]]
    assert float(moved[2]) == pytest.approx(where[2], abs=0.01)
    page.keyboard.press("PageUp")
    page.wait_for_function("z => +document.querySelector('.lk').dataset.position.split(' ')[2] > z", arg=where[2] + 0.1)

    # another sigma: other fits
    before = watched.pixels(bars)
    slider = page.locator("input[data-name=sigma]")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("b => document.querySelector('.lk-bars').toDataURL() !== b", arg=before)

    # playing ends at the end
    page.locator(".lk").focus()
    page.keyboard.press("Home")
    watched.wait_for("cursor", "-1")
    page.locator("input[data-name=speed]").fill("30")
    page.locator(".lk").focus()
    page.keyboard.press("Space")
    page.wait_for_function(
        "document.querySelector('input[data-name=cursor]').max === document.querySelector('.lk').dataset.cursor"
    )
    assert page.locator(".lk-error").is_hidden()
    watched.check()


@pytest.fixture(scope="session")
def dashboard() -> Iterator[Served]:
    with served([small_case()]) as server:
        yield server


def open_in_lab(watched: Watched, lab: tuple[str, str, Path], name: str, *sources: str) -> None:
    """Open a notebook of some cells, and run the first."""
    url, token, folder = lab
    (folder / name).write_text(notebook_of(*sources))
    page = watched.page
    page.goto(f"{url}/lab/tree/{name}?token={token}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function("document.querySelector('#jp-main-statusbar')?.innerText.includes('Idle')")
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    page.keyboard.press("Control+Enter")


def test_explorer_in_jupyterlab(watched: Watched, lab: tuple[str, str, Path]) -> None:
    page = watched.page
    open_in_lab(watched, lab, "explore.ipynb", SETUP, "view.explorer.set_threshold(0.4); view.explorer.go_to(4)")
    exercise(watched)
    # what code does to the state is seen in the view
    page.locator(".jp-Notebook .jp-Cell .cm-content").nth(1).click()
    page.keyboard.press("Control+Enter")
    watched.wait_for("cursor", "4")
    page.wait_for_function("document.querySelector('input[data-name=threshold]').value === '0.4'")
    assert page.locator(".jp-RenderedText[data-mime-type*=error]").count() == 0
    watched.check()


LESSONS = """
from lesionkit.widgets import Lesson, lessons
from lesionkit.widgets.lesson import Drawing, Line, Slider, chart
from IPython.display import display

def fragile(x):
    if x > 1:
        raise RuntimeError("out of luck")
    return Drawing([chart("a line", [Line(x=[0, 1], y=[0, x])], x=(0, 1), y=(0, 1))], f"x is {x:g}")

gating = lessons.gating()
display(gating, lessons.fused_peaks(), Lesson(fragile, x=Slider(label="x", value=0.5, low=0.0, high=2.0, step=0.5)))
"""


def test_lessons_in_jupyterlab(watched: Watched, lab: tuple[str, str, Path]) -> None:
    page = watched.page
    open_in_lab(watched, lab, "lessons.ipynb", LESSONS, "gating.change(distance=9.0, gate='before')")
    page.wait_for_function("document.querySelectorAll('.lk-lesson[data-drawn]').length === 3")
    gating, peaks, fragile = (page.locator(".lk-lesson").nth(n) for n in range(3))
    picture, curve = ".lk-lesson canvas >> nth=0", ".lk-lesson canvas >> nth=1"
    for canvas in page.locator(".lk-lesson canvas").all():
        assert canvas.evaluate("c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size > 2")

    # a key on the slider: other pairs, another number, the mark in the chart moves
    assert gating.locator(".lk-note").inner_text().startswith("7 hits, 3 false alarms, 2 missed")
    before = [page.locator(s).evaluate("c => c.toDataURL()") for s in (picture, curve)]
    slider = gating.locator("input[data-name=distance]")
    slider.focus()
    page.keyboard.press("Home")
    expect(gating.locator(".lk-note")).to_have_text("0 hits, 10 false alarms, 9 missed: F1 0.00", timeout=PATIENCE)
    expect(gating.locator("output").first).to_have_text("0.5")
    after = [page.locator(s).evaluate("c => c.toDataURL()") for s in (picture, curve)]
    assert all(a != b for a, b in zip(before, after, strict=True))

    # a choice: the gate after the assignment makes fewer hits
    slider.fill("4.5")
    expect(gating.locator(".lk-note")).to_contain_text("F1 0.63", timeout=PATIENCE)
    gating.locator("select[data-name=gate]").select_option("after")
    expect(gating.locator(".lk-note")).to_contain_text("F1 0.53", timeout=PATIENCE)

    # a drag: the peaks move apart until the profile has two maxima, and only the last value counts
    box = peaks.locator("input[data-name=separation]").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 3, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, y, steps=8)
    page.mouse.up()
    expect(peaks.locator(".lk-note")).to_have_text("5.00 sigma apart: the profile has 2 maxima", timeout=PATIENCE)
    expect(peaks.locator("figcaption").nth(2)).to_contain_text("paper's loop: 2 found")

    # what goes wrong is seen, and is over with the next good value
    fragile.locator("input").fill("2")
    expect(fragile.get_by_role("alert")).to_have_text("out of luck", timeout=PATIENCE)
    fragile.locator("input").fill("1")
    expect(fragile.locator(".lk-note")).to_have_text("x is 1", timeout=PATIENCE)
    expect(fragile.get_by_role("alert")).to_be_hidden()

    # code moves the sliders
    page.locator(".jp-Notebook .jp-Cell .cm-content").nth(1).click()
    page.keyboard.press("Control+Enter")
    expect(gating.locator("input[data-name=distance]")).to_have_value("9", timeout=PATIENCE)
    expect(gating.locator("select[data-name=gate]")).to_have_value("before")
    watched.check()


def test_explorer_on_the_dashboard(watched: Watched, dashboard: Served) -> None:
    page = watched.page
    page.goto(dashboard.url)
    exercise(watched)
    page.get_by_role("button", name="compare two sigmas").click()
    page.wait_for_selector(".lk-compact[data-drawn]")
    assert page.locator(".lk-compact").count() == 2
    shown = [page.locator("input[data-name=sigma]").nth(n).input_value() for n in (0, 1)]
    assert shown[0] != shown[1]
    page.locator(".lk-compact .lk-plane canvas").first.click(position={"x": 40, "y": 60})
    page.wait_for_function(
        "new Set([...document.querySelectorAll('.lk-compact')].map(e => e.dataset.position)).size === 1"
    )
    page.get_by_role("button", name="explore").click()
    page.get_by_role("combobox").first.select_option("sample: a faint peak beside a bright one")
    page.wait_for_function(
        "document.querySelector('.lk-head strong')?.innerText === 'a faint peak beside a bright one'"
    )
    watched.check()


@pytest.mark.parametrize(
    "path",
    ["", "voila/files/lesionkit.ipynb", "voila/files/../data/cases.json", "voila/files/%2e%2e/data/cases.json",
     "voila/static/../../../../../../../../../etc/passwd", "voila/templates/lab/static/../../../../../../etc/passwd"],
)  # fmt: skip
def test_dashboard_shows_nothing_without_its_token_and_no_file_with_it(dashboard: Served, path: str) -> None:
    base, token = dashboard.url.split("?")
    for query in ("", f"?{token}") if path else ("",):
        status, answer, url = ask(f"{base}{path}{query}")
        assert status >= 400 or "login" in url  # the page itself sends one there
        assert b"root:" not in answer
        assert b"cells" not in answer


def ask(url: str) -> tuple[int, bytes, str]:
    """Status, body and final address."""
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            return answer.status, answer.read(), answer.url
    except urllib.error.HTTPError as error:
        return error.code, error.read(), url


def test_exported_page(watched: Watched, tmp_path: Path) -> None:
    explorer = small_case().explorer()
    path = export_page(explorer, tmp_path / "page.html", title="Four <lesions>", sigmas=(1.0, 1.5))
    watched.page.goto(path.as_uri())
    watched.wait_drawn()
    assert watched.page.locator(".lk-head strong").inner_text() == "Four <lesions>"
    exercise(watched)
    assert {url for url in watched.requests if not url.startswith(("data:", "blob:"))} == {path.as_uri()}


def test_page_of_the_command_line(watched: Watched, tmp_path: Path) -> None:
    """Two images, the network that fits them and the truth, as a person would type it."""
    _, case = sample("gad")
    path = tmp_path / "page.html"
    command = [sys.executable, "-m", "lesionkit.cli", "export", *map(str, case.images), "--checkpoint", "gad"]
    done = subprocess.run([*command, "--truth", str(case.points), "-o", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert path.name in done.stdout
    page = watched.page
    page.goto(path.as_uri())
    watched.wait_drawn()
    explorer = sample_case("gad").explorer()  # the prediction that comes with the kit, by the same network
    assert page.locator(".lk-head strong").inner_text() == case.images[0].name.removesuffix(".nii.gz")
    assert page.locator(".lk-error").is_hidden()
    start = watched.pixels(".lk-plane canvas")
    page.locator(".lk").focus()
    page.keyboard.press("Shift+ArrowRight")
    watched.wait_for("cursor", "2")
    assert watched.pixels(".lk-plane canvas") != start
    where = np.array([float(v) for v in watched.read("position").split()])
    assert np.abs(where - explorer.trajectory.moments[1].mu[0]).max() < 0.5
    page.keyboard.press("End")
    said = page.locator(".lk-score b").all_inner_texts()[:3]
    assert [text.split()[0] for text in said] == [
        str(n) for n in (explorer.score.tp, explorer.score.fp, explorer.score.fn)
    ]
    page.keyboard.press("r")
    page.locator("tr[data-key]").first.click()
    alpha = float(page.locator("tr[aria-selected=true] td").nth(2).inner_text())
    assert alpha == pytest.approx(explorer.detections.alpha.max(), abs=0.02)  # this CPU's arithmetic is not the kit's
    watched.check()
    assert {url for url in watched.requests if not url.startswith(("data:", "blob:"))} == {path.as_uri()}


def test_exported_page_says_what_the_explorer_says(watched: Watched, tmp_path: Path) -> None:
    explorer = small_case().explorer()
    page = watched.page
    page.goto(export_page(explorer, tmp_path / "page.html", sigmas=(1.0,)).as_uri())
    watched.wait_drawn()
    page.locator(".lk").focus()
    for mode in ("joint", "paper"):
        page.locator("select[data-name=mode]").select_option(mode)
        explorer.set_mode(mode)
        for cursor in range(explorer.trajectory.last + 1):
            explorer.go_to(cursor)
            page.evaluate("""c => { const i = document.querySelector('input[data-name=cursor]'); i.value = c;
                             i.dispatchEvent(new Event('input')); }""", cursor)  # fmt: skip
            watched.wait_for("cursor", str(cursor))
            page.wait_for_function("s => document.querySelector('.lk-status')?.innerText === s", arg=explorer.status)
            shown = [float(v) for v in watched.read("position").split()]
            np.testing.assert_allclose(shown, explorer.position, atol=0.006)
    watched.check()


@pytest.mark.parametrize("gate", ["before", "after"])
def test_page_matches_as_python_does(watched: Watched, tmp_path: Path, gate: Gate) -> None:
    """At every threshold, and so for every number of lesions that are kept."""
    rng = np.random.default_rng(3)
    found, truth = rng.uniform(4, 26, (2, 24, 3))
    heatmap = np.zeros((30, 30, 30), np.float32)
    trajectory = Trajectory.given(heatmap, FitConfig(sigma=1.0), found, np.linspace(1.0, 0.1, 24))
    explorer = Explorer(heatmap, truth=truth[:17], found=trajectory, affine=np.diag([1.0, 1.5, 2.0, 1.0]))
    explorer.set_matching(max_distance=7.0, gate=gate)
    explorer.show_answer()
    page = watched.page
    page.goto(export_page(explorer, tmp_path / "page.html", sigmas=(1.0,), score="score").as_uri())
    watched.wait_drawn()
    for threshold in np.linspace(0.0, 1.0, 26):
        explorer.set_threshold(round(float(threshold), 3))
        page.locator("input[data-name=threshold]").fill(str(explorer.threshold))
        score = explorer.score
        hits, alarms = ("hit" + "s" * (score.tp != 1), "false alarm" + "s" * (score.fp != 1))
        said = f"{score.tp} {hits}{score.fp} {alarms}{score.fn} missed"
        expect(page.locator(".lk-score")).to_contain_text(said)
        marks = page.locator("tr[data-key^=l]").evaluate_all(
            "r => r.map(e => [+e.dataset.key.slice(1), e.className.slice(3)])"
        )
        assert dict(marks) == dict(enumerate(explorer.told))
    watched.check()


def test_a_joint_refit_is_seen(watched: Watched, tmp_path: Path) -> None:
    """The first of two fused peaks falls from 1.55 to 0.99 when the second is fitted; its bar shows both."""
    explorer = sample_case("pair_2_1").explorer()
    page = watched.page
    page.goto(export_page(explorer, tmp_path / "page.html", sigmas=(1.5,)).as_uri())
    watched.wait_drawn()
    page.locator(".lk").focus()
    alpha = page.locator("tr[data-key=l0] td").nth(2)
    before, after = (f"{explorer.trajectory.moments[n].alpha[0]:.3f}" for n in (1, 2))
    page.keyboard.press("Shift+ArrowRight")
    expect(alpha).to_have_text(before)
    page.keyboard.press("Shift+ArrowRight")
    expect(alpha).to_have_text(after)
    expect(page.locator(".lk-status")).to_contain_text("lesion 1 1.55 → 0.99")
    expect(page.locator(".lk-legend")).to_contain_text("before this step")
    page.keyboard.press("ArrowLeft")
    expect(alpha).to_have_text(before)
    watched.check()
