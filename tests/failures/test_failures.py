"""Every failure of the table happens, and geoseg does what the table says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.engines.pixelwise import write_pixelwise_bundle
from tests.failures.case import Case, Done, Made
from tests.failures.scenes import NEAREST
from tests.failures.shell import OLD, ROOT, Shell
from tests.failures.table import FAILURES, cases

LAST = 43
ARROW = "\n  -> "
SLOW = (pytest.mark.slow, pytest.mark.timeout(7200))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=SLOW if case.is_slow else ())
        for name, case in cases()
    ],
)  # fmt: skip
def test_failure(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shell = open_shell(tmp_path, case.output, monkeypatch, capfd)
    made = case.build(shell.folder / "in")
    if case.has_old_map:
        shell.output.write_bytes(OLD)
    before = listing(shell.output.parent)
    arguments = shell.arguments(case, made)
    done = shell.here(arguments) if case.run is None else case.run(shell, made, arguments)
    assert done.code == case.code, done.err
    assert "Traceback" not in done.err + done.out
    check_words(case, made, done)
    if case.code:
        assert listing(shell.output.parent) == before, "a failed run left something, or took something away"
    elif made.answer is not None:
        check_map(shell.output, made)
    if case.after is not None:
        case.after(shell, made)


def open_shell(folder: Path, output: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    """Folders for the input and the output, and the model."""
    for name in ("in", "out"):
        (folder / name).mkdir()
    write_pixelwise_bundle(folder / "model", NEAREST)
    return Shell(folder, folder / "out" / output, monkeypatch, capfd)


def listing(folder: Path) -> dict[str, bytes]:
    """Names and contents of all files."""
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}


def check_words(case: Case, made: Made, done: Done) -> None:
    """Cause, place and remedy are said, each where it belongs."""
    message, arrow, remedy = done.err.partition(ARROW)
    if case.code:
        assert arrow, f"no remedy: {done.err}"
        assert done.out == ""
        assert (case.names or made.scene.name) in message
    else:
        remedy = message
    for words in case.message:
        assert words in message, done.err
    for words in case.remedy:
        assert words in remedy, done.err


def check_map(path: Path, made: Made) -> None:
    """The map is the independent answer on the scene's grid."""
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), made.answer)
        assert file.nodata == 255
        if made.scene.is_file():
            check_grid(file, made.scene)


def check_grid(file: rasterio.DatasetReader, scene: Path) -> None:
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(scene.absolute()) as source:
        if file.shape == source.shape:
            assert file.transform == source.transform
        assert file.crs == source.crs


def test_the_table_has_every_failure_once() -> None:
    assert [failure.number for failure in FAILURES] == list(range(1, LAST + 1))


def test_every_failure_is_proved_by_a_test() -> None:
    assert [failure.number for failure in FAILURES if not (failure.cases or failure.elsewhere)] == []


def test_names_of_cases_are_their_own() -> None:
    names = [name for name, _ in cases()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: str(failure.number))
def test_tests_that_are_named_elsewhere_exist(failure: object) -> None:
    for node in getattr(failure, "elsewhere"):  # noqa: B009
        path, _, name = node.partition("::")
        assert re.search(rf"^def {re.escape(name)}\(", (ROOT / path).read_text(), re.MULTILINE), node


def test_every_refusal_says_what_to_do() -> None:
    assert [name for name, case in cases() if case.code and not case.remedy] == []


def test_the_page_is_the_table() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "failures.py"), "--check"],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
