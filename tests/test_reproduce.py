"""The paper's tables by one command, with networks that have hardly learned: every table filled, nothing done twice."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from lesionkit.cli import main
from lesionkit.experiments import FITS, RunSettings
from lesionkit.io import DataError
from lesionkit.mc_dropout import McConfig
from lesionkit.metrics import CasePoints
from lesionkit.model import ModelConfig
from lesionkit.paper import DETECTION, TRANSFER
from lesionkit.reproduce import (
    Errors,
    ReproduceConfig,
    _bias,
    _by_gate,
    _calibration,
    _large_misses,
    _order,
    _paired,
    _scratch_ahead,
    _uncertainty,
    _verdict,
    reproduce,
)
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig
from lesionkit.uncertainty import retention

TINY = TrainConfig(
    model=ModelConfig(levels=2, filters=8, dropout=0.1), patch=(16, 16, 16), window=24, steps=60, validate_every=60,
    learning_rate=5e-3, lesion_share=0.8, workers=0, max_distance_mm=12, validation_cases=2, threshold_cases=2,
)  # fmt: skip
EASY = SimulationConfig(
    kind="gad", spacing=4.0, min_size=4, lesions=(8.0, 0.2), contrast=(25, 30), lookalikes=0.0, clustered=0.0,
    confluent=0.0,
)  # fmt: skip
CONFIG = ReproduceConfig(
    simulation=EASY,
    n=10,
    settings=RunSettings(train=TINY, tune=replace(TINY, steps=20), max_distance_mm=12, mc=McConfig(samples=2, batch=2)),
    seeds=(0,),
    subsets=(0,),
    fractions=(0.01,),
    missed=0.6,
    false_positives=5.0,
    splits=20,
)


def test_the_papers_tables_are_typed_in_whole():
    assert len(DETECTION) == 5
    assert len(TRANSFER) == 19
    assert TRANSFER[1.0, "none"]["f1"] == DETECTION["segmentation", "CC"]["f1"] == (85.4, 0.02)
    assert TRANSFER[0.01, "1.25"]["dice"] == (67.6, 1.31)
    for rates in (*DETECTION.values(), *TRANSFER.values()):
        assert all(0 < sd < 10 < 40 < mean < 100 for mean, sd in rates.values())
        p, r = rates["precision"][0], rates["recall"][0]
        assert 2 * p * r / (p + r) == pytest.approx(rates["f1"][0], abs=0.7)  # means of three runs, rounded


@pytest.mark.parametrize("name", ["quick", "cpu"])
def test_presets_fill_every_row_of_every_table(name):
    config = ReproduceConfig.preset(name)
    table = config.runs()
    assert table["name"].is_unique
    tuned = table[table["fraction"] < 1]
    assert len(tuned) == 3 * 6 * len(config.subsets)
    assert set(tuned["start"]) - {""} <= set(table["name"])
    detectors = table[table["fraction"] == 1]
    assert len(detectors) == (4 + 2 + 3) * len(config.seeds)
    assert set(table["name"].head(2)) == {"heatmap_s1.25_0", "segmentation_0"}  # what the first report needs
    with pytest.raises(ValueError, match="preset"):
        ReproduceConfig.preset("gpu")


def test_another_order_than_the_papers_is_said_and_by_which_lesions():
    def rows(heatmap, segmentation):
        nothing = ("euclidean, CC", "f1", float("nan"), float("nan"), 80.6)  # no run of it is finished
        rates = ("f1", "small", "medium", "large")
        both = (("heatmap, Gaussian", heatmap, 86.3), ("segmentation, CC", segmentation, 85.4))
        return [nothing, *((n, r, v, 1.0, paper) for n, vs, paper in both for r, v in zip(rates, vs, strict=True))]

    assert _order(rows((76, 60, 85, 72), (75, 37, 83, 95))).endswith("segmentation, CC 75.0, as in the paper.")
    said = _order(rows((76, 60, 85, 72), (79, 37, 83, 95)))
    assert "segmentation, CC 79.0 > heatmap, Gaussian 76.0. The paper: heatmap, Gaussian > segmentation, CC." in said
    assert "heatmap, Gaussian: 60 / 85 / 72" in said
    assert said.endswith("Large lesions: masks do better, by 23 points. Small lesions: points do better, by 23 points.")


def _case(score, true, *, split="test", sizes=None):
    """Candidates and lesions on a line, mm."""
    along = np.array([[10.0 * n, 0, 0] for n in range(len(score))])
    lesions = np.array([[float(x), 0, 0] for x in true]).reshape(-1, 3)
    return CasePoints(
        predicted=along, score=np.array(score), unfitted=np.array(score)[::-1], true=lesions,
        sizes=np.full(len(lesions), 99.0) if sizes is None else np.array(sizes, dtype=float), split=split,
    )  # fmt: skip


def test_large_lesions_that_are_missed_are_told_from_unseen_ones():
    cases = [_case([0.9, 0.4, 0.8], [0, 10, 20, 500], sizes=[99, 99, 5, 99])]
    said = _large_misses([{("fit", "test"): cases}], [0.5], 6.0)
    assert "of the 2 that the fit misses in 1 run, 1 have a fainter candidate within 6 mm with a mean alpha" in said
    assert "of 0.40, against thresholds of 0.50; 0 lie beside a" in said
    assert said.endswith("1 are not seen at all.")
    shared = [_case([0.95], [-3, 3])]  # one candidate between two lesions: the hit of one, no miss of too little mass
    said = _large_misses([{("fit", "test"): shared}], [0.5], 6.0)
    assert "of the 1 that the fit misses in 1 run, 0 have a fainter candidate within 6 mm, against" in said
    assert said.endswith("1 lie beside a detection that is matched with another lesion; 0 are not seen at all.")
    assert _large_misses([{("fit", "test"): [_case([0.9], [0])]}], [0.5], 6.0) == "The fit misses no large lesion."


def test_the_reason_of_an_error_follows_from_its_sign():
    sure, modest = (Errors(eces=(0.1,), probability=p, hits=0.5) for p in (0.6, 0.4))
    assert _bias(modest, sure).startswith("over-confident: window sums promise 0.400 lesions a candidate and fitted")
    assert "training patches" in _bias(modest, sure)
    assert _bias(sure, modest).startswith("under-confident")
    assert "training patches" not in _bias(sure, modest)


def test_a_claim_of_the_mean_is_told_from_one_of_every_run():
    assert _verdict(True) == _verdict(True, [True, True]) == "holds"
    assert _verdict(True, [True, False]) == "holds on average"
    assert _verdict(False, [True, False]) == "does not hold"


def test_fine_tuned_and_scratch_are_compared_on_the_same_subsets():
    rows = [
        {"label": "segmentation", "fraction": 0.01, "start": start, "subset": n, "dice": dice}
        for start, n, dice in (("heatmap_s1.25_0", 0, 0.5), ("", 0, 0.6), ("", 1, 0.2), ("heatmap_s1.25_0", 2, 0.9))
    ]
    tuned, scratch = _paired(pd.DataFrame(rows), 0.01)
    assert (tuned.to_list(), scratch.to_list()) == ([0.5], [0.6])
    assert not len(_paired(pd.DataFrame(rows[1:]), 0.01)[0])


def test_seeds_and_shares_that_the_report_has_no_place_for_are_refused():
    with pytest.raises(ValueError, match="seeds"):
        replace(CONFIG, seeds=(1, 0))
    with pytest.raises(ValueError, match="fractions"):
        replace(CONFIG, fractions=(0.01, 0.2))


def test_runs_that_found_nothing_are_reported_as_such():
    section, errors = _calibration([{key: [_case([], [0])] for key in product(FITS, ("validation", "test"))}], 6.0)
    assert not errors
    assert section.lines == ("No run has candidates to be judged.",)
    curve = retention(np.array([0.1, 0.2]), np.array([True, False]))
    for samples in (None, [_case([], [0])]):
        section = _uncertainty([curve], samples, CONFIG)
        assert section.table["uncertainty"].to_list() == ["entropy of alpha"]
        assert section.lines[0].startswith("MC dropout has no detection to judge")


def test_shares_at_which_scratch_outlines_better_are_named():
    rows = [
        {"label": "segmentation", "fraction": f, "start": start, "subset": n, "dice": dice - n / 100}
        for f, tuned, scratch in ((0.01, 0.6, 0.5), (0.05, 0.7, 0.8), (0.1, 0.7, 0.9))
        for start, dice in (("heatmap_s1.25_0", tuned), ("", scratch))
        for n in (0, 1)
    ]
    config = ReproduceConfig.preset("cpu")
    said = _scratch_ahead(pd.DataFrame(rows), config)
    assert "main detector with 5 % (79.5 ± 0.7 against 69.5 ± 0.7), 10 % (89.5 ± 0.7 against 69.5 ± 0.7) of" in said
    assert "for 300 steps only, on the encoder of a detector; one from scratch for 1300." in said
    assert _scratch_ahead(pd.DataFrame(rows[:4]), config).startswith("From scratch is nowhere better")
    assert "not yet compared" in _scratch_ahead(pd.DataFrame(rows[:2]), config)


def test_far_pairs_dropped_after_the_assignment_cost_hits():
    gap = CasePoints(
        predicted=np.array([[0.0, 5, 0], [-12, 0, 0]]), score=np.array([0.9, 0.8]), sizes=np.array([5.0, 5]),
        true=np.array([[0.0, 0, 0], [12, 5, 0]]), split="test",
    )  # fmt: skip
    said = _by_gate([{("fit", "test"): [gap]}], [0.5], 6.0)
    assert said.endswith("F1 of the fit is 0.0 instead of 50.0.")


def test_one_command_makes_the_report_and_only_once(tmp_path, monkeypatch, capsys):
    with pytest.raises(DataError, match="no such folder; finished runs are wanted"):
        reproduce(tmp_path, CONFIG, n_jobs=1, only_report=True)
    assert not list(tmp_path.iterdir())  # no cohort was simulated for it
    cohort = simulate_cohort(EASY, 10, tmp_path / "cohort")
    for wanting, message in (
        (replace(cohort, cases=cohort.split("train")), "the validation split has no case"),
        (
            replace(cohort, cases=tuple(replace(case, mask=None) for case in cohort)),
            "of the train split have no lesion mask",
        ),
    ):
        with pytest.raises(DataError, match=message):
            reproduce(tmp_path, CONFIG, cohort=wanting, n_jobs=1)
    assert not (tmp_path / "runs").exists()
    seen = []
    page, text = reproduce(tmp_path, CONFIG, n_jobs=1, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == ("runs", 15, 15)
    markdown = text.read_text()
    for title in (
        "claims",
        "Tables 1 and 3",
        "Tables 2 and 4",
        "Sigma and",
        "clicks",
        "Figure 2a",
        "Figure 2b",
        "conformal",
    ):
        assert title in markdown
    detection = markdown.split("## Tables 1 and 3")[1].split("##")[0]
    assert "(86.3 ± 0.24)" in detection
    rows = [
        line for line in detection.splitlines() if line.startswith(("| heatmap", "| segmentation", "| eucl", "| geod"))
    ]
    assert len(rows) == 5
    assert not any("| - |" in row for row in rows)
    assert "as in the paper, F1 of the fit is" in detection
    transfer = markdown.split("## Tables 2 and 4")[1].split("\n## ")[0]
    assert sum(line.startswith("| 1 % |") and "| - " not in line for line in transfer.splitlines()) == 6
    assert "rom scratch is" in transfer
    for title in ("Sigma and decoder", "Careless clicks", "Figure 2a", "Figure 2b", "Beyond the paper: patients"):
        table = [line for line in markdown.split(f"## {title}")[1].split("\n## ")[0].splitlines() if line[:2] == "| "]
        assert len(table) > 2
        assert not any("| - |" in line or "nan" in line for line in table), title
    html = page.read_text()
    assert html.count('class="plotly-graph-div"') == 10
    assert "<script src" not in html  # opens offline
    assert 'src="http' not in html
    assert "<link" not in html
    begun = {path: path.read_text() for path in tmp_path.glob("runs/*/attempts.txt")}
    assert len(begun) == 15
    assert reproduce(tmp_path, CONFIG, n_jobs=1)[1].read_text() == markdown
    assert reproduce(tmp_path, CONFIG, n_jobs=1, only_report=True)[1].read_text() == markdown
    nearer = replace(CONFIG, settings=replace(CONFIG.settings, max_distance_mm=8.0))
    with pytest.raises(DataError, match="a run that differs in max_distance_mm"):
        reproduce(tmp_path, nearer, n_jobs=1, only_report=True)
    (tmp_path / "runs" / "heatmap_s1_0" / "metrics.json").unlink()
    so_far = reproduce(tmp_path, CONFIG, n_jobs=1, only_report=True)[1].read_text()
    assert "14 of 15 runs are finished so far" in so_far
    assert {path: path.read_text() for path in begun} == begun
    monkeypatch.setattr(ReproduceConfig, "preset", lambda name: CONFIG)
    assert main(["reproduce", "-o", str(tmp_path), "--only-report"]) == 0
    assert capsys.readouterr().out.split() == [str(page), str(text)]
    assert text.read_text() == so_far
