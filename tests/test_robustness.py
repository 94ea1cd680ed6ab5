"""The matrix: bad input of every kind to every command that reads it, and to the public functions.

Each time: exit code 2, one line that names the file and the mend, no traceback, and everything on disk as it was.
`docs/robustness.md` is this matrix as a page: `python tests/robustness/page.py` writes it.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lesionkit.cli import main
from lesionkit.io import read_volume

sys.path.insert(0, str(Path(__file__).parent / "robustness"))
import arrays
import page
from inputs import Bad, Study, make_study
from matrix import ARGUMENTS, ROWS, arguments_of, commands, targets


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_study(folder)
    return folder


@pytest.fixture
def study(good: Path, tmp_path: Path) -> Study:
    """A copy of the good study, in a folder with spaces and letters beyond ASCII, that may be spoilt."""
    folder = tmp_path / "Läsion études 脳"
    shutil.copytree(good, folder, symlinks=True)
    return Study(folder)


def _snapshot(folder: Path) -> dict[str, object]:
    """Every path below a folder with what is there."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        key = str(path.relative_to(folder))
        if path.is_symlink():
            found[key] = os.readlink(path)
        elif path.is_file():
            found[key] = path.read_bytes() if path.stat().st_size < 2**24 else path.stat().st_size
        else:
            found[key] = None
    return found


def _complaints(said: str) -> int:
    """Count the complaints, of which the last line must be one; a line of progress may stand before it."""
    lines = said.splitlines()
    return sum(line.startswith("lesionkit: ") for line in lines) if lines[-1].startswith("lesionkit: ") else 0


def _results(study: Study) -> None:
    """Put earlier results where the commands write."""
    for name in ("image_heatmap.nii.gz", "image_lesions.tsv", "image_report.html", "p.csv", "scores.tsv", "page.html"):
        (study.results / name).parent.mkdir(exist_ok=True)
        (study.results / name).write_text(f"earlier {name}", encoding="utf-8")


@pytest.mark.parametrize(("kind", "bad"), ROWS, ids=[f"{kind}: {bad.what}" for kind, bad in ROWS])
def test_bad_input(kind: str, bad: Bad, study: Study, capsys: pytest.CaptureFixture[str]):
    paths = targets(kind, study)
    for path in paths:
        bad.make(path)
    _results(study)
    for number, (name, arguments) in enumerate(commands(kind, study).items()):
        before = _snapshot(study.folder)
        is_fine = not bad.gets or name in bad.fine_for
        if is_fine and name in ("train", "dashboard"):  # would train, or serve until it is stopped
            continue
        code = main(arguments)
        said = capsys.readouterr().err.replace(f"{study.folder}/", "")
        assert "Traceback" not in said
        if is_fine:
            assert code == 0, f"{name}: {said}"
            continue
        assert code == 2, f"{name}: {said}"
        assert _complaints(said) == 1, f"{name}: {said}"
        assert dict(bad.others).get(name, bad.gets) in said, f"{name}: {said}"
        assert re.search("want|again|set a valid|at most", said), f"{name}: {said}"
        assert re.search("|".join(re.escape(path.name) for path in paths) + "|raw|sub-1", said), f"{name}: {said}"
        if number == 0:
            assert f"{bad.gets}; {bad.wants}" in said
        assert _snapshot(study.folder) == before, name


@pytest.mark.parametrize(("line", "gets"), ARGUMENTS, ids=[line for line, _ in ARGUMENTS])
def test_settings_that_cannot_be_used(line: str, gets: str, study: Study, capsys: pytest.CaptureFixture[str]):
    before = _snapshot(study.folder)
    assert main(arguments_of(line, study)) == 2
    said = capsys.readouterr().err
    for name, path in (("IMAGE", study.image), ("COHORT", study.cohort), ("RAW", study.raw)):
        said = said.replace(str(path), name)
    assert _complaints(said) == 1, said
    assert gets in said
    assert "Traceback" not in said
    assert _snapshot(study.folder) == before


def test_every_command_has_its_rows(study: Study):
    """A new command that reads files must come into the matrix."""
    from lesionkit.cli import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    covered = {arguments[0] for kind in page.KINDS for arguments in commands(kind, study).values()}
    without_input = {"demo", "simulate"}
    assert names - covered - without_input - page.ELSEWHERE == set()


def test_the_page_shows_this_matrix():
    written = (Path(__file__).parent.parent / "docs" / "robustness.md").read_text(encoding="utf-8")
    assert written == page.render(), "run: python tests/robustness/page.py"


@pytest.mark.parametrize("case", arrays.CASES, ids=[f"{c.function}: {c.what}" for c in arrays.CASES])
def test_public_functions(case: arrays.Case):
    if not case.gets:
        case.call()
        return
    with pytest.raises((ValueError, TypeError)) as caught:
        case.call()
    message = str(caught.value)
    assert case.gets in message
    assert len(message.splitlines()) == 1


def test_every_public_name_is_in_the_matrix():
    import lesionkit

    functions = {name for name in lesionkit.__all__ if name not in ("__version__", "Detections")}
    assert functions <= {case.function for case in arrays.CASES}


def test_debug_shows_where(study: Study):
    study.image.unlink()
    with pytest.raises(ValueError, match="does not exist"):
        main(["--debug", "detect", str(study.image), "-c", str(study.checkpoint), "-o", str(study.results)])


def test_a_pickle_is_not_opened(study: Study, monkeypatch: pytest.MonkeyPatch):
    """The pickle of the matrix would make a folder if anything ran it."""
    import pickle

    monkeypatch.chdir(study.folder)
    dict(ROWS_BY_NAME)["a pickle that would run code (.pt, .ckpt)"].make(study.checkpoint)
    assert main(["detect", str(study.image), "-c", str(study.checkpoint)]) == 2
    assert not (study.folder / "executed").exists()
    pickle.loads(study.checkpoint.read_bytes())
    assert (study.folder / "executed").exists()  # it would have


ROWS_BY_NAME = [(bad.what, bad) for _, bad in ROWS]


@pytest.mark.parametrize("what", ["a gzip bomb", "a header that claims 30000 x 30000 x 30000"])
def test_memory_is_not_taken_for_claims(what: str, study: Study):
    """In a process that may take 300 MB more than it has after loading what it needs."""
    dict(ROWS_BY_NAME)[what].make(study.image)
    code = (
        "import resource, sys; from lesionkit.io import read_volume, DataError;"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 3 * 10**8,) * 2)\n"
        "try: read_volume(sys.argv[1])\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, study.image], capture_output=True, text=True, check=True)
    assert dict(ROWS_BY_NAME)[what].gets in done.stdout


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Without the rights of root, which may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module")
def warm(good: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Everything is loaded: what a command loads may lie where only root can read it, or need the disk."""
    folder = tmp_path_factory.mktemp("warm") / "study"
    shutil.copytree(good, folder)
    for name, arguments in _writers(Study(folder)).items():
        assert main(arguments) == 0, name


@pytest.fixture
def public(good: Path) -> Iterator[Path]:
    """A folder that everybody may enter."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(good, folder / "study")
    for path in (folder / "study").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / "study").chmod(0o755)
    yield folder / "study"
    shutil.rmtree(folder)


@pytest.mark.usefixtures("warm")
def test_no_permission_to_read(public: Path, capsys: pytest.CaptureFixture[str]):
    study = Study(public)
    study.folder.chmod(0o777)
    for kind in ("image", "points", "clicks", "checkpoint"):
        paths = targets(kind, study)
        for path in paths:
            path.chmod(0)
        for name, arguments in commands(kind, study).items():
            if name == "dashboard":
                continue
            with _as_nobody():
                assert main(arguments) == 2, name
            said = capsys.readouterr().err
            assert any(path.name in said for path in paths), name
            assert "ermission denied" in said, name
            assert _complaints(said) == 1, said
        for path in paths:
            path.chmod(0o644)


@pytest.mark.usefixtures("warm")
def test_no_permission_to_write(public: Path, capsys: pytest.CaptureFixture[str]):
    study = Study(public)
    before = _snapshot(study.folder)
    for name, arguments in _writers(study).items():
        with _as_nobody():
            assert main(arguments) == 2, name
        said = capsys.readouterr().err
        assert "ermission denied" in said, name
        assert _complaints(said) == 1, name
    assert _snapshot(study.folder) == before


def _writers(study: Study) -> dict[str, list[str]]:
    """Return the commands that write, each with good input."""
    return {
        **{name: arguments for name, arguments in commands("image", study).items() if name != "dashboard"},
        "simulate": ["simulate", "--n", "1", "--jobs", "1", "-o", str(study.folder / "simulated")],
    }


@pytest.mark.usefixtures("warm")
def test_a_disk_that_is_full(study: Study, capsys: pytest.CaptureFixture[str]):
    """No file may grow beyond 10 bytes, as on a disk that fills up in the middle of a write."""
    _results(study)
    before = _snapshot(study.folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, arguments in _writers(study).items():
        if name == "train":  # its workers need files of their own, in memory
            continue
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            code = main(arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        said = capsys.readouterr().err
        assert code == 2, f"{name}: {said}"
        assert "File too large" in said, name
        assert _complaints(said) == 1, f"{name}: {said}"
        shutil.rmtree(study.folder / "simulated", ignore_errors=True)  # whole files stay, to go on from
        assert _snapshot(study.folder) == before, name


def _interrupted(arguments: list[str], ready: Path, *, folder: Path) -> tuple[int, str]:
    """Start a command, press Ctrl-C once `ready` exists, and return exit code and what was said."""
    command = [str(Path(sys.executable).with_name("lesionkit")), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background inherit "ignored"
    )  # fmt: skip
    while process.poll() is None and not list(ready.parent.glob(ready.name)):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


def test_ctrl_c_in_an_import(study: Study):
    """With enough patients that it cannot be done before."""
    for number in range(300):
        shutil.copytree(study.raw / "A", study.raw / f"P{number}")
    before = _snapshot(study.folder)
    arguments = ["import", str(study.raw), "-o", str(study.folder / "imported")]
    code, said = _interrupted(arguments, study.folder / ".imported.*", folder=study.folder)
    assert code == 130
    assert said == "lesionkit: interrupted\n"
    assert _snapshot(study.folder) == before


def test_ctrl_c_in_a_training(study: Study):
    arguments = ["train", str(study.cohort), "--steps", "100000", "-o", "run"]
    code, said = _interrupted(arguments, study.folder / "run" / "log", folder=study.folder)
    assert code == 130
    assert said == "lesionkit: interrupted\n"
    names = [path.name for path in (study.folder / "run").rglob("*")]
    assert not [name for name in names if name.startswith(".") or name.endswith((".safetensors", ".ckpt"))]


def test_ctrl_c_in_a_simulation_keeps_whole_cases_to_go_on_from(study: Study):
    arguments = ["simulate", "--n", "300", "--jobs", "2", "-o", "new"]
    ready = study.folder / "new" / "sub-001" / "anat" / "*.nii.gz"
    code, said = _interrupted(arguments, ready, folder=study.folder)
    assert code == 130
    assert said == "lesionkit: interrupted\n"
    for path in (study.folder / "new").rglob("*.nii.gz"):
        if not path.name.startswith("."):
            read_volume(path)


def test_ctrl_c_between_two_cases_keeps_the_first_whole(study: Study):
    names = [f"image{number}.nii.gz" for number in range(200)]
    for name in names:
        shutil.copyfile(study.image, study.folder / name)
    arguments = ["detect", *names, "-c", str(study.checkpoint), "-o", "out"]
    code, said = _interrupted(arguments, study.folder / "out" / "image0_report.html", folder=study.folder)
    assert code == 130
    assert said.splitlines()[-1] == "lesionkit: interrupted"
    written = sorted(path.name for path in (study.folder / "out").iterdir())
    assert not [name for name in written if name.startswith(".")]
    assert "</html>" in (study.folder / "out" / "image0_report.html").read_text(encoding="utf-8")[-100:]
