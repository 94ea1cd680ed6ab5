"""The command line: `lesionkit --help` lists its commands.

Exit codes: 0 done, 1 our fault, 2 the input or the arguments, 130 interrupted, 143 terminated. Heavy
libraries load inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from lesionkit.terminal import TERMINATED, Bar, Terminal, ended_by_sigterm, never_fail_to_print

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from jaxtyping import Bool

    from lesionkit.checkpoints import Checkpoint
    from lesionkit.importing import ImportRow
    from lesionkit.metrics import CasePoints, ScoreTable
    from lesionkit.pipeline import CaseResult
    from lesionkit.volume import Volume

app = typer.Typer(
    help="Find lesions in brain MRI by heatmap regression from point annotations. Not a medical device.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
points_app = typer.Typer(help="Points of 3D Slicer, napari, label images and tables.", no_args_is_help=True)
app.add_typer(points_app, name="points")
console = Terminal()
errors = Terminal(stderr=True)

UsageError: type[Exception] = typer.BadParameter.__mro__[2]
"""click's base of errors in the arguments, wherever this version of typer has it from."""


class Kind(StrEnum):
    """Kinds of simulated lesions."""

    gad = "gad"
    flair = "flair"


class Preset(StrEnum):
    """Named training settings."""

    cpu = "cpu"
    gad = "gad"
    flair = "flair"
    paper = "paper"


class Label(StrEnum):
    """What a network learns to predict."""

    heatmap = "heatmap"
    euclidean = "euclidean"
    geodesic = "geodesic"
    segmentation = "segmentation"


OF_LABELS: dict[str, tuple[str, ...]] = {
    "sigma": ("heatmap",),
    "sigma_mm": ("heatmap",),
    "radius": ("euclidean", "geodesic"),
    "decay": ("euclidean", "geodesic"),
    "contrast": ("geodesic",),
    "positive_weight": ("segmentation",),
}
"""Settings of a training, and the labels that each has a meaning for."""


class Place(StrEnum):
    """Where in a lesion the training points lie."""

    mass = "mass"
    voxel = "voxel"


class Public(StrEnum):
    """Public data that can be fetched."""

    ljubljana = "ljubljana"


class Outside(StrEnum):
    """What to do with points outside the brain."""

    refuse = "refuse"
    drop = "drop"


class Hits(StrEnum):
    """When a detection counts as a hit."""

    distance = "distance"
    mask = "mask"


class Gating(StrEnum):
    """When far pairs are ruled out."""

    before = "before"
    after = "after"


class ReproducePreset(StrEnum):
    """Sizes of a reproduction of the paper."""

    quick = "quick"
    cpu = "cpu"


class Units(StrEnum):
    """What coordinates may be."""

    mm = "mm"
    voxel = "voxel"
    ras_voxel = "ras-voxel"


Output = Annotated[Path, typer.Option("-o", "--output", help="Folder for the results; made if missing.")]
ShownImages = Annotated[
    list[Path] | None,
    typer.Argument(help="NIfTI images: the channels of a case one after another.", show_default=False),
]
HeatmapOption = Annotated[Path | None, typer.Option(help="Heatmap predicted before (NIfTI, the image's grid).")]
MaskOption = Annotated[
    Path | None, typer.Option(help="Brain mask of the one case (NIfTI); else a BIDS mask beside the image, or found.")
]
TruthOption = Annotated[Path | None, typer.Option(help="True points of the one case, as `points convert` reads them.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")]
ForceOption = Annotated[bool, typer.Option("--force", help="Take the images as given, whatever they look like.")]
CheckpointOption = Annotated[str, typer.Option("--checkpoint", "-c", help="`gad`, `flair`, or a .safetensors file.")]


class CasesFailed(Exception):
    """Some of several cases could not be done; the others are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    never_fail_to_print()
    console.quiet = errors.quiet = False
    try:
        with ended_by_sigterm():
            result = app([a for a in arguments if a != "--debug"], standalone_mode=False)
        if result == 130:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        if stop.code != TERMINATED:
            raise
        errors.print("lesionkit: terminated", style="yellow")
        return TERMINATED
    except UsageError as error:
        message = str(getattr(error, "format_message", error.__str__)())  # names the option
        if message:  # without arguments the help has been shown
            errors.print(f"lesionkit: {message} (--help: what is wanted)", style="red")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        errors.print("lesionkit: interrupted", style="yellow")
        return 130
    except CasesFailed as failure:
        for line, _ in failure.args:
            errors.print(f"lesionkit: {line}", style="red")
        return int(min(code for _, code in failure.args))
    except Exception as error:
        if debug:
            raise
        line, code = _complaint(error)
        errors.print(f"lesionkit: {line}", style="red")
        return code


def _complaint(error: Exception) -> tuple[str, int]:
    """Return an error as a line, and its exit code."""
    # The last: a loss that is no number, on a case it names.
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return str(error), 2
    return f"internal error: {type(error).__name__}: {error} (--debug shows where)", 1


@app.command()
def demo(output: Output = Path("demo_output")) -> None:
    """Find the lesions of the two sample cases and show the results."""
    from lesionkit import gaussian_heatmap
    from lesionkit.checkpoints import load_checkpoint
    from lesionkit.io import read_points
    from lesionkit.pipeline import read_images
    from lesionkit.samples import sample

    for kind in Kind:
        cohort, case = sample(kind.value)
        assert case.points is not None
        truth = read_points(case.points)
        checkpoint = load_checkpoint(kind.value)
        console.rule(f"{kind.value}: {' + '.join(cohort.channels)}")
        images = read_images(case.images)
        points = images[0].to_voxel(truth[["x", "y", "z"]].to_numpy(dtype=float))
        label = gaussian_heatmap(points, images[0].shape, checkpoint.card.sigma)
        console.print(f"{len(truth)} points -> the target heatmap that a network learns; its sum is {label.sum():.2f}")
        result = _detect_with_progress(checkpoint, images, kind.value)
        _write(result, output, f"sample_{kind.value}", truth)


@app.command()
def simulate(
    output: Output,
    kind: Annotated[
        Kind, typer.Option(help="gad: enhancing lesions on T1; flair: bright lesions on FLAIR.")
    ] = Kind.gad,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of patients.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cohort.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes; -1: one a core.")] = -1,
    anatomy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BRAIN",
            help="Brain to deform, repeatable: colin27, icbm152, or a T1 of your own: T1[,BRAIN_MASK[,LESION_MASK]]; "
            "one that is stripped wants no mask. Default: both shipped ones.",
        ),
    ] = None,
    heads: Annotated[float, typer.Option(help="Share of cases with the head around the brain.")] = 0.0,
    thick: Annotated[float, typer.Option(help="Share of cases in thick slices, most of them axial.")] = 0.0,
    thickness: Annotated[tuple[float, float], typer.Option(help="Range of their distance, mm.")] = (2.0, 8.0),
    thick_voxels: Annotated[bool, typer.Option("--thick-voxels", help="Do not resample thick slices.")] = False,
    healthy: Annotated[bool, typer.Option("--healthy", help="No lesions, to count false alarms.")] = False,
) -> None:
    """Simulate a cohort with known lesions (BIDS: images, masks, points, splits)."""
    from dataclasses import replace

    from lesionkit.simulate import SimulationConfig, simulate_cohort

    config = SimulationConfig.preset(kind.value)
    config = replace(
        config,
        anatomies=tuple(anatomy) if anatomy else config.anatomies,
        heads=heads,
        thick=thick,
        thickness=thickness,
        thick_voxels=thick_voxels,
        lesions=(0.0, 0.0) if healthy else config.lesions,
    )
    with _progress() as bar:
        task = bar.add_task(f"{kind.value} cohort", total=n)
        cohort = simulate_cohort(
            config,
            n,
            output,
            seed=seed,
            jobs=jobs,
            progress=lambda done: bar.update(task, completed=done),
        )
    shares = ", ".join(f"{len(cohort.split(name))} {name}" for name in ("train", "validation", "test"))
    console.print(f"{len(cohort)} cases in {output} ({shares})")


@app.command()
def train(
    cohort: Annotated[Path, typer.Argument(help="BIDS cohort with points, as `lesionkit simulate` writes it.")],
    output: Output,
    preset: Annotated[
        Preset, typer.Option(help="gad, flair: recipes of the shipped checkpoints; paper: the paper's size.")
    ] = Preset.cpu,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last completed validation.")] = False,
    label: Annotated[Label, typer.Option(help="What to learn (the paper's table 1); a segmentation wants masks.")] = (
        Label.heatmap
    ),
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of the preset's.")] = None,
    sigma: Annotated[float | None, typer.Option(help="Sigma of a heatmap in voxels, instead of the preset's.")] = None,
    radius: Annotated[float | None, typer.Option(help="Where a distance map reaches 0, voxels.")] = None,
    decay: Annotated[float | None, typer.Option(help="Exponent p of a distance map.")] = None,
    contrast: Annotated[
        float | None, typer.Option(help="Way, in voxels, that a unit of intensity is worth in a geodesic map.")
    ] = None,
    positive_weight: Annotated[
        float | None, typer.Option(help="Weight of a lesion's voxel in the loss of a segmentation.")
    ] = None,
    placement: Annotated[Place, typer.Option(help="Training points: the table's, or a random voxel.")] = Place.mass,
    jitter_mm: Annotated[float | None, typer.Option(min=0, help="Gaussian error of the training points, mm.")] = None,
    sigma_mm: Annotated[
        float | None, typer.Option(help="Sigma of a heatmap in mm, for anisotropic voxels: one sigma an axis.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Fine-tune this checkpoint (`gad`, `flair` or a file).")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the preset's.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Stop after so many validations without a better F1; 0: never.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs, or processes without any, that share a batch.")] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines, each with that many devices.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed; default: bf16 where it is fast.")
    ] = None,
) -> None:
    """Train a detector on points or masks; keeps the best network by validation F1."""
    from dataclasses import replace

    from lesionkit.checkpoints import load_checkpoint
    from lesionkit.io import read_cohort
    from lesionkit.training import TrainConfig, finetuning_config, sigma_in_voxels
    from lesionkit.training import train as run

    data = read_cohort(cohort)
    config = TrainConfig.preset(preset.value)
    changes: dict[str, Any] = {
        "label": label.value, "steps": steps, "sigma": sigma, "radius": radius, "decay": decay, "contrast": contrast,
        "positive_weight": positive_weight, "placement": placement.value, "jitter_mm": jitter_mm, "seed": seed,
        "patience": patience,
    }  # fmt: skip
    checkpoint = None if start is None else load_checkpoint(start)
    shaped = label.value if checkpoint is None else checkpoint.card.label
    _check_label_options(changes | {"sigma_mm": sigma_mm}, shaped, tuned=checkpoint is not None)
    config = replace(config, **{name: value for name, value in changes.items() if value is not None})
    if sigma_mm is not None:
        config = replace(config, sigma=sigma_in_voxels(data, sigma_mm))
    weights = None
    if checkpoint is not None:
        config = finetuning_config(checkpoint, data, config)
        weights = checkpoint.model.state_dict()
    path = run(
        data, output, config, resume=resume, progress=True, weights=weights, keep_start=True,
        devices=devices, num_nodes=num_nodes, precision=precision,
    )  # fmt: skip
    card = load_checkpoint(path).card
    scores = ", ".join(f"{name} {value:.3f}" for name, value in card.training["validation"].items())
    console.print(f"{path}: validation {scores}; threshold {card.threshold:.3f}")
    if card.training["step"] == 0:
        console.print(f"no better than {start}, which is kept, with that threshold: more patients may help")


def _check_label_options(given: Mapping[str, Any], label: str, *, tuned: bool) -> None:
    """Refuse an option that would be ignored: each shapes some labels only, and fine-tuning keeps a label's shape."""
    for name, labels in OF_LABELS.items():
        option = "--" + name.replace("_", "-")
        if given[name] is None:
            continue
        if label not in labels:
            raise ValueError(f"{option} goes with the label {' or '.join(labels)}, got {label}")
        if tuned and name != "positive_weight":  # of the loss, not of the label
            raise ValueError(f"{option}: --from takes it from its checkpoint; leave it out")


@app.command()
def fetch(
    name: Annotated[Public, typer.Argument(help="ljubljana: patients with multiple sclerosis and their lesions.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder; the name by default.")] = None,
    mirror: Annotated[str | None, typer.Option(help="Address of a server that has the files as packed.")] = None,
) -> None:
    """Fetch public data of real patients; run again to go on. LESIONKIT_DATA names a copy that is on disk already."""
    from lesionkit.io.fetch import fetch_ljubljana, summary

    folder = output if output is not None else Path(name.value)
    with _progress() as bar:
        task = bar.add_task("files", total=None)
        written = fetch_ljubljana(
            folder, mirror=mirror,
            progress=lambda path, done, total: bar.update(task, completed=done, total=total, description=path),
        )  # fmt: skip
    console.print(f"{folder}: {summary(written)}")


@app.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(help="Images and points: a folder a patient, or names that start with the patient.")
    ],
    output: Output,
    like: Annotated[
        str | None, typer.Option(help="Take channels and spacing from this checkpoint, to fine-tune it.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="Images to take, in order, such as ce-gad_T1w,T1w.")] = None,
    spacing: Annotated[str | None, typer.Option(help="Voxel edges in mm, such as 1 or 0.9,0.9,3.")] = None,
    kind: Annotated[str | None, typer.Option(help="What the points are, such as flair or gad.")] = None,
    units: Annotated[Units | None, typer.Option(help="What coordinates in tables are, where it is open.")] = None,
    outside: Annotated[Outside, typer.Option(help="A patient with points outside the brain: what to do.")] = (
        Outside.refuse
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the split by patient.")] = 0,
) -> None:
    """Check your images and points and make a BIDS cohort of them; one row a file says what was done."""
    from lesionkit.importing import ImportConfig, NothingImported, import_cohort

    settings: dict[str, Any] = {"units": units, "outside": outside.value, "seed": seed}
    if like is not None:
        from lesionkit.checkpoints import load_checkpoint

        card = load_checkpoint(like).card
        settings |= {"channels": card.channels, "spacing": card.spacing, "kind": card.kind}
    if channels is not None:
        settings["channels"] = tuple(name.strip() for name in channels.split(","))
    if spacing is not None:
        settings["spacing"] = _edges(spacing)
    if kind is not None:
        settings["kind"] = kind
    with _progress() as bar:
        task = bar.add_task("patients", total=None)
        try:
            report = import_cohort(
                folder, output, ImportConfig(**settings),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
        except NothingImported as refusal:
            _print_import(refusal.rows)
            raise
    _print_import(report.rows)
    cohort = report.cohort
    shares = ", ".join(f"{len(cohort.split(name))} {name}" for name in ("train", "validation", "test"))
    console.print(f"{len(cohort)} patients in {output} ({shares})")


def _edges(text: str) -> float | tuple[float, ...]:
    try:
        edges = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--spacing is {text!r}; one or three numbers (mm), such as 1 or 0.9,0.9,3, are wanted"
        ) from None
    return edges[0] if len(edges) == 1 else edges


def _print_import(rows: Sequence[ImportRow]) -> None:
    colours = {"imported": "green", "refused": "red", "left out": "yellow"}
    for row in rows:
        text = Text.assemble((f"{row.status:<9}", colours[row.status]), f" {row.file}: {row.what}")
        console.print(text)


@app.command()
def predict(
    images: Annotated[
        list[Path], typer.Argument(help="NIfTI images: the channels of a case one after another, case by case.")
    ],
    output: Output,
    checkpoint: CheckpointOption = "flair",
    mask: MaskOption = None,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
) -> None:
    """Predict heatmaps only: `<name>_heatmap.nii.gz` in the space of the image."""
    from lesionkit.checkpoints import load_checkpoint
    from lesionkit.io import check_writable, write_volume

    network = load_checkpoint(checkpoint)
    cases = _cases(images, network, mask)
    targets = {name: output / f"{name}_heatmap.nii.gz" for name, _ in cases}
    check_writable(*targets.values())

    def one(name: str, paths: Sequence[Path]) -> None:
        volumes = _read_case(network, paths, force=force)
        brain = _brain(paths[0], volumes[0], mask)
        result = _detect_with_progress(network, volumes, name, mask=brain, device=device)
        write_volume(targets[name], result.heatmap_as_given())
        console.print(str(targets[name]))

    _each(cases, one)


@app.command()
def detect(
    images: Annotated[
        list[Path], typer.Argument(help="NIfTI images: the channels of a case one after another, case by case.")
    ],
    output: Output = Path("lesions"),
    checkpoint: CheckpointOption = "flair",
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Smallest alpha of a lesion, instead of the checkpoint's.")
    ] = None,
    truth: TruthOption = None,
    max_distance: Annotated[float, typer.Option(min=0, help="Gate of the matching with the truth, mm.")] = 6.0,
    mask: MaskOption = None,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
) -> None:
    """Find the lesions of images: heatmap (NIfTI), lesions (TSV) and an interactive report (HTML) for each case."""
    from lesionkit.checkpoints import load_checkpoint

    network = load_checkpoint(checkpoint)
    cases = _cases(images, network, mask)
    if truth is not None and len(cases) > 1:
        raise ValueError(f"--truth goes with one case, got {len(cases)}; use `lesionkit evaluate` for a cohort")
    _check_results(output, *(name for name, _ in cases))

    def one(name: str, paths: Sequence[Path]) -> None:
        volumes = _read_case(network, paths, force=force)
        points = _true_points(truth, volumes[0])
        brain = _brain(paths[0], volumes[0], mask)
        result = _detect_with_progress(network, volumes, name, mask=brain, threshold=threshold, device=device)
        _write(result, output, name, points, max_distance)

    _each(cases, one)


@app.command()
def longitudinal(
    before: Annotated[Path, typer.Argument(help="FLAIR of the first visit (NIfTI).")],
    after: Annotated[Path, typer.Argument(help="FLAIR of the second visit, registered to the first.")],
    output: Output = Path("new_lesions"),
    threshold: Annotated[float | None, typer.Option(min=0, help="Smallest alpha of a new lesion.")] = None,
    sigma_mm: Annotated[float | None, typer.Option(help="Width of a new lesion in the map, mm.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="True new lesions, as `points convert` reads them: scores are printed.")
    ] = None,
    mask: MaskOption = None,
    force: ForceOption = False,
) -> None:
    """Find new lesions between two visits: heatmap, table and report in the space of the second."""
    from dataclasses import replace

    from lesionkit.channels import in_order
    from lesionkit.longitudinal import LongitudinalConfig, read_two_visits
    from lesionkit.pipeline import read_images

    changes = {"threshold": threshold, "sigma_mm": sigma_mm}
    config = replace(LongitudinalConfig(), **{name: value for name, value in changes.items() if value is not None})
    name = f"{_stem(after)}_new"
    _check_results(output, name)
    if not force:
        for path in (before, after):
            in_order([path], ["FLAIR"])
    (first,), (second,) = read_images([before]), read_images([after])
    points = _true_points(truth, second)
    brain = _brain(after, second, mask)
    with _about(before), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = read_two_visits(first, second, config, mask=brain, force=force)
    for warning in said:
        errors.print(f"warning: {before}: {warning.message}", style="yellow")
    _write(result, output, name, points)


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Name the file that an error of an argument is about."""
    from lesionkit.io import DataError

    try:
        yield
    except DataError:  # names its file
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


@app.command()
def evaluate(
    cohort: Annotated[Path, typer.Argument(help="BIDS cohort with points.")],
    output: Output = Path("evaluation"),
    checkpoint: CheckpointOption = "gad",
    split: Annotated[str, typer.Option(help="Split that is scored.")] = "test",
    max_distance: Annotated[float, typer.Option(min=0, help="Gate of the matching, mm.")] = 6.0,
    gate: Annotated[
        Gating, typer.Option(help="Rule far pairs out before the assignment, or after it as in the paper.")
    ] = Gating.before,
    hits: Annotated[
        Hits, typer.Option(help="A hit is near a lesion's point, or inside its mask whatever the distance.")
    ] = Hits.distance,
    baselines: Annotated[bool, typer.Option(help="Also score CC and the learning-free Laplacian of Gaussian.")] = True,
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Of the network alone, instead of the checkpoint's; no baselines then.")
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Score a checkpoint on a cohort: precision, recall, F1, recall by size. Thresholds come from validation only.

    Writes scores.tsv (with 95 % intervals over patients), patients.tsv and candidates.tsv.
    """
    from lesionkit.checkpoints import load_checkpoint
    from lesionkit.evaluation import METHODS, evaluate_cohort, score_in_masks
    from lesionkit.io import check_writable, read_cohort
    from lesionkit.metrics import froc, froc_score, score_points

    check_writable(*(output / name for name in ("scores.tsv", "patients.tsv", "candidates.tsv")))
    if hits is Hits.mask and gate is Gating.after:
        raise ValueError("--gate after goes with --hits distance: inside a mask there are no far pairs")
    network = load_checkpoint(checkpoint)
    data = read_cohort(cohort)
    with _progress() as bar:
        task = bar.add_task("cases", total=None)
        found = evaluate_cohort(
            network, data, split=split, max_distance=max_distance, baselines=baselines and threshold is None,
            threshold=threshold, device=device,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    entries = data.split(split)
    rows: dict[str, ScoreTable] = {}
    for method, (cases, threshold) in found.items():
        rows[f"{METHODS[method]} at {threshold:.3g}"] = (
            score_in_masks(cases, entries, threshold)
            if hits is Hits.mask
            else score_points(cases, threshold, max_distance=max_distance, gate=gate.value)
        )
    _write_scores(rows, found, output)
    rule = "hits inside masks" if hits is Hits.mask else f"gate {max_distance:g} mm, {gate.value} the assignment"
    _print_scores(rows, f"{data.folder.name}: {split}, {len(entries)} cases, {rule}")
    if hits is Hits.distance and gate is Gating.before:  # what a FROC curve of this kit counts
        for method, (cases, _) in found.items():
            score = froc_score(froc(cases, max_distance=max_distance))
            console.print(f"FROC score, {METHODS[method]}: {score:.3f}")
    console.print(str(output / "scores.tsv"))


@app.command()
def napari(
    images: Annotated[
        list[Path] | None, typer.Argument(help="NIfTI images; without any, and without a heatmap: a sample case.")
    ] = None,
    heatmap: Annotated[Path | None, typer.Option(help="Predicted heatmap (NIfTI) to step through.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", "-c", help="With a heatmap: its sigma and threshold. Without: run on the images."),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="True points: TSV, CSV, 3D Slicer, label image.")] = None,
) -> None:
    """Open napari, ready to step through fit and subtract, to tune it and to annotate."""
    try:
        import napari as viewer
        import qtpy.QtWidgets  # noqa: F401 (the binding of Qt is the user's to choose, and may be lacking)

        from napari_lesionkit.launch import launch
    except ImportError as error:
        raise ValueError(f"napari is not installed ({error}); pip install 'lesionkit[napari]' PyQt6") from error
    launch(images or (), heatmap=heatmap, checkpoint=checkpoint, truth=truth)
    viewer.run()


@app.command()
def export(
    images: ShownImages = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file.")] = Path("lesions.html"),
    sample: Annotated[Kind, typer.Option(help="Which sample case, where no image is given.")] = Kind.flair,
    checkpoint: CheckpointOption = "flair",
    heatmap: HeatmapOption = None,
    truth: TruthOption = None,
    sigma: Annotated[
        float | None, typer.Option(help="Sigma of the heatmap in voxels, instead of the network's.")
    ] = None,
) -> None:
    """Write the interactive view as one HTML file that needs neither Python nor a network."""
    from lesionkit.checkpoints import read_card
    from lesionkit.io import check_writable
    from lesionkit.pipeline import read_case
    from lesionkit.widgets.cases import sample_case, user_case
    from lesionkit.widgets.page import export_page

    check_writable(output)
    if images and heatmap is None:
        images = list(read_case(images, read_card(checkpoint).channels)[0])
    if images or heatmap:
        case = user_case(images or [], checkpoint=checkpoint, heatmap=heatmap, sigma=sigma, truth=truth)
    else:
        case = sample_case(sample.value)
    with _progress() as bar:
        task = bar.add_task("searching with several sigmas", total=1.0)
        path = export_page(
            case.explorer(), output, title=case.title, progress=lambda part: bar.update(task, completed=part)
        )
    console.print(str(path))


@app.command()
def dashboard(
    images: ShownImages = None,
    checkpoint: CheckpointOption = "flair",
    heatmap: HeatmapOption = None,
    truth: TruthOption = None,
    sigma: Annotated[
        float | None, typer.Option(help="Sigma of the heatmap in voxels, instead of the network's.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="A free one by default.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Open the interactive view as a page in the browser, on this machine only: the samples, and your images."""
    from lesionkit.checkpoints import load_checkpoint, read_card
    from lesionkit.pipeline import read_case
    from lesionkit.widgets.cases import user_case
    from lesionkit.widgets.dashboard import serve

    cases = []
    if heatmap is not None:
        cases = [user_case(images or [], checkpoint=checkpoint, heatmap=heatmap, sigma=sigma, truth=truth)]
    elif images:
        network = load_checkpoint(checkpoint)
        groups = _cases(images, network)
        if truth is not None and len(groups) > 1:
            raise ValueError(f"--truth goes with one case, got {len(groups)}")
        with _progress() as bar:
            task = bar.add_task("predicting", total=len(groups))
            for number, (name, paths) in enumerate(groups):
                bar.update(task, completed=number, description=name)
                ordered, _ = read_case(paths, network.card.channels)
                cases.append(user_case(ordered, checkpoint=checkpoint, sigma=sigma, truth=truth, network=network))
    elif truth is not None or sigma is not None:
        raise ValueError("--truth and --sigma go with an image or --heatmap, got neither")
    else:
        read_card(checkpoint)  # may complain
    for url in serve(cases, port=port, browser=browser):
        console.print(f"{url}\n(stop with Ctrl+C)")


@app.command()
def reproduce(
    output: Output = Path("reproduction"),
    preset: Annotated[
        ReproducePreset,
        typer.Option(help="quick: every table, small networks, minutes; cpu: 4 to 6 hours on two cores."),
    ] = ReproducePreset.quick,
    cohort: Annotated[
        Path | None, typer.Option(help="BIDS cohort with points, masks and splits; default: one is simulated.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler that does the runs.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes on this machine; -1: one a core.")] = -1,
    only_report: Annotated[
        bool, typer.Option("--only-report", help="Report the runs that are there; do none.")
    ] = False,
) -> None:
    """Compute the counterpart of the paper's tables 1-4 and figure 2, beside its numbers; goes on where it stopped."""
    from lesionkit.io import read_cohort
    from lesionkit.reproduce import ReproduceConfig
    from lesionkit.reproduce import reproduce as run

    with _progress() as bar:
        task = bar.add_task("", total=None)
        paths = run(
            output,
            ReproduceConfig.preset(preset.value),
            cohort=None if cohort is None else read_cohort(cohort),
            n_jobs=jobs,
            scheduler=scheduler,
            only_report=only_report,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    for path in paths:
        console.print(str(path))


@points_app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help=".mrk.json, .fcsv, .tsv, .csv, or labels .nii.gz.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=".mrk.json, .fcsv, .tsv, .csv, or _napari.csv.")],
    image: Annotated[Path | None, typer.Option(help="The image the points are on; all must be inside.")] = None,
    units: Annotated[Units | None, typer.Option(help="What the coordinates in IN are, where it is open.")] = None,
    out_units: Annotated[Units | None, typer.Option(help="What to write, in tables and for napari.")] = None,
    axes: Annotated[str, typer.Option(help="Order in which napari shows the axes of the image's file.")] = "ijk",
) -> None:
    """Convert points between programs; voxel indices are those of the image's file, or RAS+ as ras-voxel."""
    from lesionkit.io import convert_points

    chosen: dict[str, Any] = {"units": units, "out_units": out_units}
    found = convert_points(source, target, image=image, axes=axes, **chosen)
    for note in found.notes:
        errors.print(f"note: {note}", style="yellow")
    console.print(f"{target}: {len(found.frame)} points, from {found.format}")


def _cases(images: Sequence[Path], network: Checkpoint, mask: Path | None = None) -> list[tuple[str, tuple[Path, ...]]]:
    """Group image paths into cases, and name each after its first image."""
    from lesionkit.channels import in_order

    channels = network.card.channels
    if len(images) % len(channels):
        raise ValueError(
            f"checkpoint {network.name} wants {len(channels)} images a case, in this order: {', '.join(channels)}; "
            f"got {len(images)}"
        )
    groups = [tuple(images[i : i + len(channels)]) for i in range(0, len(images), len(channels))]
    if mask is not None and len(groups) > 1:
        raise ValueError(f"--mask goes with one case, got {len(groups)}; run them one at a time")
    names = [_stem(group[0]) for group in groups]
    for number, group in enumerate(groups):
        with suppress(ValueError):  # said when its turn comes
            names[number] = _stem(in_order(group, channels)[0])
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two images are called {name}; run them one at a time, or into folders of their own")
    return list(zip(names, groups, strict=True))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _each(cases: Sequence[tuple[str, tuple[Path, ...]]], one: Callable[[str, Sequence[Path]], None]) -> None:
    """Do one case after another; what fails is said at the end, when the others are done."""
    failed = []
    for name, paths in cases:
        try:
            one(name, paths)
        except Exception as error:
            if len(cases) == 1:
                raise
            line, code = _complaint(error)
            failed.append((f"{name}: {line}", code))
            errors.print(f"{name}: failed", style="red")
    if failed:
        failed.append((f"{len(failed)} of {len(cases)} cases failed", 2))
        raise CasesFailed(*failed)


def _read_case(network: Checkpoint, paths: Sequence[Path], *, force: bool) -> list[Volume]:
    """Read the images of a case in the network's order, and say which is taken as which."""
    from lesionkit.pipeline import read_case

    channels = network.card.channels
    ordered, volumes = read_case(paths, channels, force=force)
    if len(channels) > 1:
        taken = [f"{path} is taken as {channel}" for path, channel in zip(ordered, channels, strict=True)]
        errors.print(", ".join([taken[0], *(text.replace(" is taken", "", 1) for text in taken[1:])]))
    return volumes


def _true_points(truth: Path | None, image: Volume) -> pd.DataFrame | None:
    """Read true points in any format; they must lie in the image."""
    from lesionkit.io import import_points

    if truth is None:
        return None
    found = import_points(truth, image=image)
    if wrong := found.wrong_size():
        raise ValueError(f"{truth}: {wrong}")
    return found.frame


def _check_results(output: Path, *names: str) -> None:
    """See that the results of cases can be written, before they are computed."""
    from lesionkit.io import check_writable
    from lesionkit.pipeline import result_files

    check_writable(*(path for name in names for path in result_files(output, name).values()))


def _brain(path: Path, image: Volume, given: Path | None) -> Bool[np.ndarray, "i j k"]:
    """Return the brain of a case, and say how large it is."""
    from lesionkit.pipeline import read_brain

    mask, note = read_brain(path, image, given)
    console.print(f"{path.name}: {note}", markup=False, highlight=False, soft_wrap=True)
    return mask


def _detect_with_progress(
    network: Checkpoint,
    images: Sequence[Volume],
    name: str,
    *,
    mask: Bool[np.ndarray, "i j k"] | None = None,
    threshold: float | None = None,
    device: str = "cpu",
) -> CaseResult:
    from lesionkit.pipeline import detect_lesions

    with _progress() as bar:
        task = bar.add_task(name, total=1.0)
        return detect_lesions(
            network, images, mask=mask, threshold=threshold, device=device,
            progress=lambda part: bar.update(task, completed=part),
        )  # fmt: skip


def _write(result: CaseResult, output: Path, name: str, truth: pd.DataFrame | None, max_distance: float = 6.0) -> None:
    """Write the files of a case, and only then print what was found."""
    from lesionkit.pipeline import write_result

    paths = write_result(result, output, name, truth=truth, max_distance_mm=max_distance).values()
    _print_lesions(result, truth, max_distance)
    for path in paths:
        console.print(str(path))


def _print_lesions(result: CaseResult, truth: pd.DataFrame | None, max_distance: float = 6.0, most: int = 20) -> None:
    lesions = result.lesions()
    scored = None if truth is None else result.case_points(truth)
    nearest = _distance_to_truth(scored, result.threshold, max_distance) if scored is not None else {}
    table = Table(title=f"{len(lesions)} lesions with alpha >= {result.threshold:.3f}")
    for column in ("", "x mm", "y mm", "z mm", "alpha", *(["true lesion at"] if scored is not None else [])):
        table.add_column(column, justify="right")
    for number, row in lesions.head(most).iterrows():
        place = [f"{row[name]:.1f}" for name in ("x", "y", "z")]
        match = [nearest.get(int(str(number)), "-")] if scored is not None else []
        table.add_row(str(int(str(number)) + 1), *place, f"{row['alpha']:.2f}", *match)
    console.print(table)
    if len(lesions) > most:
        console.print(f"and {len(lesions) - most} more in the table that is written")
    if scored is not None:
        from lesionkit.metrics import score_points

        _print_scores(
            {"this case": score_points([scored], result.threshold, max_distance=max_distance)},
            f"gate {max_distance:g} mm",
        )


def _distance_to_truth(case: CasePoints, threshold: float, max_distance: float) -> dict[int, str]:
    """Row of a lesion -> distance to the true lesion it is matched with (rows run by falling alpha)."""
    matching = case.match(threshold, max_distance=max_distance)
    return {int(p): f"{d:.1f} mm" for (p, _), d in zip(matching.pairs, matching.distances, strict=True)}


def _print_scores(rows: dict[str, ScoreTable], title: str) -> None:
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for column in ("", "F1", "prec.", "recall", "small", "medium", "large", "TP", "FP", "FN"):
        table.add_column(column, justify="right" if column else "left")
    for name, scores in rows.items():
        pooled = scores.pooled
        sizes = [f"{s.n_found}/{s.n_true}" if s.n_true else "-" for s in scores.by_size.values()]
        rates = [f"{value:.3f}" for value in (pooled.f1, pooled.precision, pooled.recall)]
        table.add_row(name, *rates, *sizes, *(str(c) for c in (pooled.tp, pooled.fp, pooled.fn)))
    console.print(table)


def _write_scores(rows: dict[str, ScoreTable], found: dict[str, tuple[list[CasePoints], float]], output: Path) -> None:
    """Write the scores of each method with intervals, those of each patient, and every candidate."""
    import numpy as np
    import pandas as pd

    from lesionkit.io import atomic_path

    scores = pd.concat(
        {name: t.to_frame().join(t.intervals(rng=np.random.default_rng(0))) for name, t in rows.items()},
        names=["method"],
    )
    patients = pd.concat({name: table.patients() for name, table in rows.items()}, names=["method"]).droplevel(1)
    candidates = pd.concat(
        [
            pd.DataFrame(case.predicted, columns=["x", "y", "z"]).assign(
                method=method, subject=case.subject, score=case.score
            )
            for method, (cases, _) in found.items()
            for case in cases
        ]
    )
    written = {"scores.tsv": (scores, True), "patients.tsv": (patients, True), "candidates.tsv": (candidates, False)}
    for name, (frame, index) in written.items():
        with atomic_path(output / name) as temporary:
            frame.to_csv(temporary, sep="\t", index=index, float_format="%.4f")


def _progress() -> Bar:
    return Bar(errors)


if __name__ == "__main__":
    sys.exit(main())
