"""Throw damaged files at the readers: each must read the file or raise a `DataError` of one line that names it.

Not part of the tests' run. By hand, and in the background, since it takes minutes to hours:

    python tests/fuzz/readers.py atheris all --runs 170000 --folder scratch      # a million inputs in all
    python tests/fuzz/readers.py atheris nifti --runs 300000 --folder scratch
    python tests/fuzz/readers.py hypothesis markups --runs 20000 --folder scratch

`atheris` mutates the seeds and keeps what reaches new code; `hypothesis` builds files that are right but for one thing.
What breaks a reader is written to `--folder`; mended, it belongs into `tests/fuzz/cases/<reader>-<what>`, which the
ordinary tests (`tests/test_fuzz.py`) read again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Reader:
    """A reader under attack."""

    ending: str
    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]


def _read_nifti(path: Path) -> object:
    from lesionkit.io import read_volume

    return read_volume(path)


def _read_points(path: Path) -> object:
    from lesionkit.io import import_points

    return import_points(path)


def _read_tsv(path: Path) -> object:
    from lesionkit.io import read_points

    return read_points(path)


def _read_checkpoint(path: Path) -> object:
    from lesionkit.checkpoints import load_checkpoint

    return load_checkpoint(path)


def _nifti_seeds() -> list[bytes]:
    import nibabel as nib
    import numpy as np

    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.array([[-1.0, 0.1, 0, 3], [0, 0, 2, -4], [0.1, 1.5, 0, 5], [0, 0, 0, 1]])
    images: list[Any] = []
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        for dtype in (np.uint8, np.int16, np.float32, np.float64):
            image = kind(values.astype(dtype), affine)
            image.set_qform(np.diag([1.0, 2, 3, 1]), code=1)
            images.append(image)
    images[1].header.set_slope_inter(0.5, 3)
    seeds = [image.to_bytes() for image in images]
    big = nib.Nifti1Image(values, affine, nib.Nifti1Header(endianness=">"))
    seeds.append(big.to_bytes())
    seeds.append(gzip.compress(seeds[0], mtime=0))
    return seeds


def _tsv_seeds() -> list[bytes]:
    return [
        b"x\ty\tz\tsize_vox\n1.5\t-2\t3e1\t12\n4\t5\t6\tn/a\n",
        b"\xef\xbb\xbfx\ty\tz\r\n1\t2\t3\r\n",
        b"i\tj\tk\nx\ty\tz\n",
        b'x\ty\tz\tlabel\n1\t2\t3\t"a b"\n',
        "x\ty\tz\n1\t2\t3\n".encode("utf-16"),
    ]


def _csv_seeds() -> list[bytes]:
    return [
        b"x,y,z,alpha\n1,2,3,0.5\n-4.25,5,6e-1,\n",
        b"label,r,a,s,defined,selected,visible,locked,description\nF-1,1,2,3,1,1,1,0,alpha=0.93; size_vox=12\n",
        b"l,p,s\n1,2,3\n",
        b"index,axis-0,axis-1,axis-2\n0,1,2,3\n",
        b'x,y,z,label\n1,2,3,"a,""b"""\n',
    ]


def _markups_seeds() -> list[bytes]:
    point = {"id": "1", "label": "F-1", "description": "alpha=0.5; a%3Bb=c", "position": [1.5, -2, 3e1]}
    point |= {"orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1], "selected": True, "positionStatus": "defined"}
    whole = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": [point, point]}
    other = {"type": "Line", "coordinateSystem": 0, "controlPoints": []}
    unset = {**whole, "coordinateSystem": "RAS", "controlPoints": [{"positionStatus": "undefined", "position": None}]}
    contents: list[Any] = [
        {"markups": [whole]},
        {"markups": [whole, other, whole]},
        {"markups": [unset]},
        {"markups": []},
    ]
    return [json.dumps(content).encode() for content in contents]


def _fcsv_seeds() -> list[bytes]:
    head = b"# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    columns = b"# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    row = b"1,1.5,-2,3e1,0,0,0,1,1,1,0,F-1,alpha=0.5; size_vox=3,\n"
    return [head + columns + row * 2, head.replace(b"LPS", b"0") + row, head + columns.replace(b"id,x", b"x,id") + row]


def _checkpoint_seeds() -> list[bytes]:
    from lesionkit.checkpoints import Card, save_checkpoint
    from lesionkit.model import ModelConfig, UNet

    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for levels, channels in ((1, 1), (2, 2)):
            path = Path(folder) / "m.safetensors"
            config = ModelConfig(levels=levels, filters=1, channels=channels)
            card = Card(kind="flair", channels=("FLAIR",) * channels, spacing=(1, 1, 1), sigma=1.5, threshold=0.4)
            save_checkpoint(path, UNet(config), card)
            seeds.append(path.read_bytes())
    return seeds


READERS = {
    "nifti": Reader(".nii", _read_nifti, _nifti_seeds),
    "tsv": Reader("_points.tsv", _read_tsv, _tsv_seeds),
    "table": Reader(".csv", _read_points, _csv_seeds),
    "markups": Reader(".mrk.json", _read_points, _markups_seeds),
    "fcsv": Reader(".fcsv", _read_points, _fcsv_seeds),
    "checkpoint": Reader(".safetensors", _read_checkpoint, _checkpoint_seeds),
}


def attack(name: str, content: bytes, path: Path) -> str | None:
    """Read a content; return the message of the refusal, None if it was read. Anything else is raised."""
    from lesionkit.io import DataError

    path.write_bytes(content)
    try:
        READERS[name].read(path)
    except DataError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or not message.startswith(str(path)):
            raise AssertionError(f"not one line that names the file: {message!r}") from error
        return message
    return None


def _atheris(name: str, runs: int, folder: Path, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["lesionkit.io", "lesionkit.checkpoints", "nibabel.nifti1"]):
        import lesionkit.checkpoints
        import lesionkit.io  # noqa: F401 (imported to be instrumented)
    corpus = folder / f"corpus-{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(READERS[name].seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    scratch = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path = scratch / f"file{READERS[name].ending}"
    limits = [f"-runs={runs}", "-rss_limit_mb=3000", "-timeout=20", "-max_len=4096", "-print_final_stats=1"]
    limits += [f"-artifact_prefix={folder}/crash-{name}-", *([f"-max_total_time={seconds}"] if seconds else [])]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], lambda content: attack(name, content, path) and None)
    atheris.Fuzz()


def _all(engine: str, runs: int, folder: Path, seconds: int) -> None:
    """Attack every reader, each in a process of its own, and say how many inputs it took."""
    total = 0
    for name in READERS:
        place = ["--runs", str(runs), "--seconds", str(seconds), "--folder", str(folder)]
        done = subprocess.run([sys.executable, __file__, engine, name, *place], capture_output=True, text=True)
        said = done.stdout + done.stderr
        if done.returncode:
            sys.exit(f"{said[-3000:]}\n{name}: broken, see {folder}")
        counts = re.findall(r"number_of_executed_units: (\d+)|(\d+) read, (\d+) refused", said)
        inputs = sum(int(number or 0) for number in counts[-1])
        total += inputs
        print(f"{name}: {inputs} inputs, none broke it", flush=True)
    print(f"{total} inputs in all")


def damaged(name: str) -> Any:
    """Return a hypothesis strategy of files that are right but for a few things."""
    from hypothesis import strategies as st

    seeds = READERS[name].seeds()

    @st.composite
    def contents(draw: Any) -> bytes:
        content = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(1, 4))):
            kind = draw(st.sampled_from(["set", "cut", "insert", "repeat", "field"]))
            place = draw(st.integers(0, max(len(content) - 1, 0)))
            if kind == "set" and content:
                content[place] = draw(st.integers(0, 255))
            elif kind == "cut":
                del content[place : place + draw(st.integers(1, 40))]
            elif kind == "insert":
                content[place:place] = draw(_tokens(name))
            elif kind == "repeat":
                piece = bytes(content[place : place + draw(st.integers(1, 60))])
                content[place:place] = piece * draw(st.integers(1, 4))
            elif len(content) >= 352:
                offset, form = draw(st.sampled_from(_FIELDS if name == "nifti" else [(0, "<Q")]))
                whole = st.floats(width=32) if form.endswith("f") else _integers(form)
                struct.pack_into(form, content, offset, draw(whole))
        return bytes(content)

    return contents()


_FIELDS = [
    *((40 + 2 * axis, "<h") for axis in range(8)), (70, "<h"), (72, "<h"), *((76 + 4 * n, "<f") for n in range(8)),
    (108, "<f"), (112, "<f"), (116, "<f"), (123, "<B"), (252, "<h"), (254, "<h"),
    *((256 + 4 * n, "<f") for n in range(18)), (344, "<I"),
]  # fmt: skip
"""Offsets and forms of the NIfTI-1 fields: dim, datatype, bitpix, pixdim, offset, scaling, units, forms, magic."""


def _integers(form: str) -> Any:
    from hypothesis import strategies as st

    bits = 8 * struct.calcsize(form)
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if form[-1].islower() else st.integers(0, 2**bits - 1)


def _tokens(name: str) -> Any:
    from hypothesis import strategies as st

    common = [b"nan", b"inf", b"-1e999", b"1_0", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b"1" * 400]
    own = {
        "tsv": [b"\t", b"x\t", b"\tn/a"],
        "table": [b",", b"x,", b";", b"i,j,k,"],
        "markups": [b"[", b"{", b"null", b"true", b'{"a":' * 30, b"[" * 3000, b"1e400", b"\\ud800", b'"position":'],
        "fcsv": [b",", b"# CoordinateSystem = ", b"IJK", b"# columns = "],
        "checkpoint": [b"{", b"null", b'"levels": 99999999', b'\\"filters\\": 1e9', b"9" * 20],
    }.get(name, [b"\x5c\x01\0\0", b"n+1\0", b"\x1f\x8b"])
    return st.one_of(st.sampled_from(common + own), st.binary(max_size=12))


def _hypothesis(name: str, runs: int, folder: Path) -> None:
    from hypothesis import HealthCheck, Phase, given, settings

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        path = Path(scratch) / f"file{READERS[name].ending}"
        count = {"read": 0, "refused": 0}

        @settings(
            max_examples=runs, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )  # fmt: skip
        @given(damaged(name))
        def every_file(content: bytes) -> None:
            try:
                message = attack(name, content, path)
            except BaseException:
                (folder / f"crash-{name}").write_bytes(content)
                raise
            count["refused" if message else "read"] += 1

        start = time.monotonic()
        every_file()
        print(f"{name}: {count['read']} read, {count['refused']} refused, {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["atheris", "hypothesis"])
    parser.add_argument("reader", choices=[*READERS, "all"])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=0, help="Stop atheris after this long.")
    parser.add_argument("--folder", type=Path, required=True, help="For the corpus and what breaks a reader.")
    given = parser.parse_args()
    if given.reader == "all":
        _all(given.engine, given.runs, given.folder, given.seconds)
    elif given.engine == "atheris":
        _atheris(given.reader, given.runs, given.folder, given.seconds)
    else:
        _hypothesis(given.reader, given.runs, given.folder)


if __name__ == "__main__":
    main()
