"""Public data: from a server on this machine, broken connections and wrong files included."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from lesionkit.io import DataError, fetch, read_volume, write_volume
from lesionkit.volume import Volume

CROP = np.array([3, 2, 1])
WHOLE, PART = (26, 30, 24), (20, 24, 20)
AFFINE = np.eye(4)
AFFINE[:3, 3] = (-12, -14, -10)
NAMES = ("FLAIR", "T1", "T1POST", "T2")


class _Server(http.server.ThreadingHTTPServer):
    """Serves a folder, with ranges; breaks the first answer after `broken` bytes."""

    folder: Path
    broken = 0
    log: list[tuple[str, str | None]]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        server = self.server
        path = server.folder / self.path.lstrip("/")
        wanted = self.headers.get("Range")
        server.log.append((self.path, wanted))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if server.broken:
            rest, server.broken = rest[: server.broken], 0
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    (tmp_path / "served").mkdir()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.folder, server.log = tmp_path / "served", []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def listing(tmp_path: Path, server: _Server, rng: np.random.Generator) -> Path:
    """A source of one patient on whole-head grids (LAS), the packed files of it, and the listing of both."""
    lesions = np.zeros(PART, np.uint16)
    lesions[4:6, 5:7, 5] = 1
    lesions[10, 10:13, 9] = 2
    rows = []
    packed = server.folder / "pack"
    turned = np.diag([-1.0, 1, 1, 1])
    turned[:3, 3] = AFFINE[:3, 3] - CROP + [WHOLE[0] - 1, 0, 0]

    def add(name: str, stored: np.ndarray, slope: float | None, source: str) -> None:
        path = f"cross/patient07/{name}.nii.gz"
        values = stored if slope is None else (stored * slope).astype(np.float32)
        write_volume(packed / path, Volume(values, AFFINE))
        if source:
            whole = np.zeros(WHOLE, values.dtype)
            whole[tuple(slice(a, a + n) for a, n in zip(CROP, PART, strict=True))] = values
            (server.folder / "source" / source).parent.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image((whole > 0).astype(np.uint8) if name == "lesions" else whole, turned)
            image.dataobj[...] = image.dataobj[::-1].copy()
            nib.save(image, server.folder / "source" / source)
        content = (packed / path).read_bytes()
        rows.append(
            {
                "path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "source": source,
                "slope": "" if slope is None else repr(slope), "shape": " ".join(map(str, PART)),
                "affine": " ".join(f"{v:g}" for v in AFFINE[:3].ravel()),
                "voxels": hashlib.sha256(stored.astype("<i4").tobytes()).hexdigest()[:32], "total": int(stored.sum()),
            }
        )  # fmt: skip

    images = [np.where(rng.random(PART) < 0.9, rng.integers(1, 4096, PART), 0).astype(np.uint16) for _ in NAMES]
    for name, stored in zip(NAMES, images, strict=True):
        add(name, stored, 0.25, f"MNI/p07/{name}_brain.nii.gz")
    union = ndimage.binary_fill_holes(np.any([image > 0 for image in images], axis=0))
    add("brainmask", union.astype(np.uint16), None, "")
    add("lesions", lesions, None, "MNI/p07/gold.nii.gz")
    pd.DataFrame(rows).to_csv(tmp_path / "listing.tsv", sep="\t", index=False)
    return tmp_path / "listing.tsv"


def _address(server: _Server, part: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{part}"


def test_the_source_becomes_what_is_packed(server: _Server, listing: Path, tmp_path: Path):
    written = fetch.fetch_ljubljana(tmp_path / "data", source=_address(server, "source"), listing=listing)
    assert [path.name for path in written] == [f"{name}.nii.gz" for name in (*NAMES, "brainmask", "lesions")]
    for path in written:
        packed = read_volume(server.folder / "pack" / path.relative_to(tmp_path / "data"))
        assert read_volume(path).same_grid(packed)
        assert read_volume(path).data == pytest.approx(packed.data, abs=1e-3)
    asked = len(server.log)
    fetch.fetch_ljubljana(tmp_path / "data", source=_address(server, "source"), listing=listing)
    assert len(server.log) == asked  # all is there


def test_a_broken_download_goes_on_where_it_ended(server: _Server, listing: Path, tmp_path: Path):
    server.broken = 3000
    with pytest.raises(DataError, match=r"FLAIR.*run the command again to go on"):
        fetch.fetch_ljubljana(tmp_path / "data", mirror=_address(server, "pack"), listing=listing)
    assert not list((tmp_path / "data").rglob("FLAIR.nii.gz"))
    written = fetch.fetch_ljubljana(tmp_path / "data", mirror=_address(server, "pack"), listing=listing)
    assert server.log[1] == ("/pack/cross/patient07/FLAIR.nii.gz", "bytes=3000-")
    assert written[0].read_bytes() == (server.folder / "pack/cross/patient07/FLAIR.nii.gz").read_bytes()
    assert not list((tmp_path / "data").rglob("*.part"))


def test_a_file_with_another_hash_is_refused(server: _Server, listing: Path, tmp_path: Path):
    bad = server.folder / "pack/cross/patient07/T1.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"T1.nii.gz: is not the file of that name"):
        fetch.fetch_ljubljana(tmp_path / "data", mirror=_address(server, "pack"), listing=listing)
    assert sorted(p.name for p in (tmp_path / "data").rglob("*") if p.is_file()) == ["FLAIR.nii.gz"]


def test_a_source_that_has_changed_is_refused(server: _Server, listing: Path, tmp_path: Path):
    path = server.folder / "source/MNI/p07/gold.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 1, axis=1), image.affine), path)
    with pytest.raises(DataError, match="other voxels than expected"):
        fetch.fetch_ljubljana(tmp_path / "data", source=_address(server, "source"), listing=listing)
    assert not (tmp_path / "data/cross/patient07/lesions.nii.gz").exists()


def test_a_file_that_is_missing_or_a_server_that_is_off_is_said(server: _Server, listing: Path, tmp_path: Path):
    for address in (_address(server, "nowhere"), "http://127.0.0.1:9"):
        with pytest.raises(DataError, match="cannot be fetched") as caught:
            fetch.fetch_ljubljana(tmp_path / "data", mirror=address, listing=listing)
        assert len(str(caught.value).splitlines()) == 1


def test_a_copy_on_disk_is_checked_and_taken(server: _Server, listing: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv(fetch.ENVIRONMENT, str(server.folder / "pack"))
    written = fetch.fetch_ljubljana(tmp_path / "data", listing=listing)
    assert len(written) == 6
    assert not server.log
    bad = server.folder / "pack/cross/patient07/T2.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"T2.nii.gz: is not the file of that name"):
        fetch.fetch_ljubljana(tmp_path / "other", listing=listing)


def test_the_shipped_listing_is_whole():
    entries = fetch.entries()
    assert len(entries) == 63
    assert len({entry.path for entry in entries}) == 63
    assert all(len(entry.sha256) == 64 and ".." not in entry.path for entry in entries)
    assert sum(bool(entry.source) for entry in entries) == 48
