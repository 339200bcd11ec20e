"""The wheel alone, in an empty environment away from the checkout, does the main job."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import rasterio

from geoseg_cli.bundle import Bundle
from geoseg_cli.training.bundle_recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (path,) = folder.glob("geoseg-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_carries_the_bundles_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for bundle in RECIPES:
        for file in Bundle.open(ROOT / "models" / bundle).files:
            assert f"geoseg_cli/models/{bundle}/{file.name}" in names
    for data in (ROOT / "geoseg_cli" / "data").iterdir():
        assert data.is_dir() or f"geoseg_cli/data/{data.name}" in names
    assert {name.split("/")[0] for name in names} == {"geoseg_cli", names[-1].split("/")[0]}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_empty_environment_with_the_wheel_runs_both_commands(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    subprocess.run([str(python), "-m", "pip", "check"], check=True)
    sample = ROOT / "sample_scenes" / "l1c_13_bands.tif"
    for command, suffix in (("classify", "landcover"), ("cloudmask", "cloudmask")):
        for engine in ("onnx", "torch"):
            done = subprocess.run(
                [str(python.with_name("geoseg")), command, str(sample), "--out-dir", ".", "--engine", engine,
                 "--overwrite", "-q"],
                check=True, capture_output=True, text=True, cwd=tmp_path,
            )  # fmt: skip
            output = tmp_path / f"l1c_13_bands_{suffix}.tif"
            assert done.stdout == f"{output.name}\n"
            with rasterio.open(output) as file:
                assert file.shape == (512, 512)
                assert file.tags()["GEOSEG_ENGINE"] == engine
