"""Every kind of output, in both formats and on every kind of grid, is read equal by programs of others."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile
from affine import Affine
from rasterio.crs import CRS

from geoseg_cli.catalog import legends
from geoseg_cli.grid import Grid
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.maps import Kind, MapSpec, MapWriter
from geoseg_cli.rows import Rows
from tests.results.published import tags_of

ROOT = Path(__file__).resolve().parents[2]
LEGEND = legends()["esa-worldcover"]
HEIGHT, WIDTH = 530, 600
KINDS: tuple[Kind, ...] = ("labels", "probabilities", "confidence", "entropy")
GRIDS = {
    "north-up": (CRS.from_epsg(32631), Affine(10, 0, 500_000, 0, -10, 5_000_000)),
    "south-up": (CRS.from_epsg(32631), Affine(10, 0, 500_000, 0, 10, 4_000_000)),
    "rotated": (CRS.from_epsg(32631), Affine(8, 6, 500_000, 6, -8, 5_000_000)),
    "geographic": (CRS.from_epsg(4326), Affine(1e-4, 0, 12.5, 0, -1e-4, -41.5)),
    "no-crs": (None, Affine.identity()),
}

Maps = tuple[dict[Kind, Path], dict[Kind, npt.NDArray[np.uint8]], Grid]


def answers(seed: int) -> tuple[Rows, dict[Kind, npt.NDArray[np.uint8]]]:
    """Rows of a run, and what each raster must hold: shares of 1 as steps of 1 / 250, entropy from its definition."""
    rng = np.random.default_rng(seed)
    classes = len(LEGEND.classes)
    steps = rng.multinomial(250, rng.dirichlet(np.full(classes, 0.3), 64))
    entropies = (
        250 * np.array([-sum(n / 250 * math.log(n / 250) for n in row if n) for row in steps]) / math.log(classes)
    )
    # Half a step is rounded as float32 happens to fall.
    is_clear = np.abs(entropies % 1 - 0.5) > 0.01
    steps, entropies = steps[is_clear], np.rint(entropies[is_clear])
    chosen, valid = rng.integers(0, len(steps), (HEIGHT, WIDTH)), rng.random((HEIGHT, WIDTH)) > 0.1
    shares = ((steps / 250)[chosen].transpose(2, 0, 1) * valid).astype(np.float32)
    labels = np.where(valid, np.array(LEGEND.values)[steps.argmax(1)][chosen], 255).astype(np.uint8)
    stored: dict[Kind, Any] = {
        "labels": labels,
        "probabilities": steps[chosen].transpose(2, 0, 1),
        "confidence": steps.max(1)[chosen],
        "entropy": entropies[chosen],
    }
    expected = {kind: np.where(valid, values, 255).astype(np.uint8) for kind, values in stored.items()}
    rows = Rows(0, labels, shares.max(0), shares, valid)
    return rows, {kind: pixels.reshape(-1, HEIGHT, WIDTH) for kind, pixels in expected.items()}


def write_maps(folder: Path, name: str, file_format: Any) -> Maps:
    crs, transform = GRIDS[name]
    grid = Grid(crs, transform, HEIGHT, WIDTH)
    rows, expected = answers(len(name))
    targets: dict[Kind, Path] = {kind: folder / f"{name}_{file_format}_{kind}.tif" for kind in KINDS}
    spec = MapSpec(grid, LEGEND, "land_cover", tags_of(LEGEND), {}, format=file_format)
    with (
        OutputTransaction(list(targets.values()), False) as transaction,
        MapWriter(spec, targets, transaction) as writer,
    ):
        writer.write(rows)
        writer.finish()
        transaction.commit()
    return targets, expected, grid


QUICK = {("north-up", "cog"), ("south-up", "gtiff")}
CASES = [
    pytest.param((name, kind), id=f"{name}-{kind}", marks=() if (name, kind) in QUICK else pytest.mark.slow)
    for name in GRIDS
    for kind in ("cog", "gtiff")
]


@pytest.fixture(scope="module", params=CASES)
def maps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Maps:
    return write_maps(tmp_path_factory.mktemp("maps"), *request.param)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_rasterio_reads_the_pixels_the_grid_and_the_meaning(maps: Maps) -> None:
    paths, expected, grid = maps
    for kind, path in paths.items():
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), expected[kind], kind)
            assert (file.crs, file.transform) == (grid.crs, grid.transform)
            assert set(file.nodatavals) == {255}
            assert set(file.scales) == {1.0 if kind == "labels" else 1 / 250}
            np.testing.assert_array_equal(file.read_masks(1) > 0, expected[kind][0] != 255)


def test_tifffile_reads_the_pixels_and_the_georeference(maps: Maps) -> None:
    paths, expected, grid = maps
    for kind, path in paths.items():
        with tifffile.TiffFile(path) as file:
            pixels = file.series[0].levels[0].asarray()
            tags = file.pages[0].tags
            told = {name: tags[name].value for name in ("ModelPixelScaleTag", "ModelTransformationTag") if name in tags}
            nodata = tags["GDAL_NODATA"].value.strip("\0")
        bands = pixels if pixels.ndim == 3 else pixels[None]
        if bands.shape != expected[kind].shape:
            bands = bands.transpose(2, 0, 1)
        np.testing.assert_array_equal(bands, expected[kind], kind)
        assert nodata == "255"
        t = grid.transform
        if "ModelPixelScaleTag" in told:
            assert told["ModelPixelScaleTag"][:2] == (t.a, -t.e)
            assert (t.b, t.d) == (0, 0)
        elif "ModelTransformationTag" in told:
            matrix = told["ModelTransformationTag"]
            assert (*matrix[0:2], matrix[3], *matrix[4:6], matrix[7]) == (t.a, t.b, t.c, t.d, t.e, t.f)
        else:
            assert (grid.crs, t) == (None, Affine.identity())


@pytest.mark.skipif(shutil.which("gdal_translate") is None, reason="needs GDAL's command line")
def test_gdals_command_line_writes_the_same_bytes_out_and_tells_the_same_grid(maps: Maps, tmp_path: Path) -> None:
    paths, expected, grid = maps
    for kind, path in paths.items():
        raw = tmp_path / f"{kind}.img"
        subprocess.run(
            ["gdal_translate", "-q", "-of", "ENVI", "-co", "INTERLEAVE=BSQ", str(path), str(raw)], check=True
        )
        np.testing.assert_array_equal(np.fromfile(raw, np.uint8), expected[kind].ravel(), kind)
        done = subprocess.run(["gdalinfo", "-json", str(path)], capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        assert told["size"] == [WIDTH, HEIGHT]
        assert tuple(told.get("geoTransform", (0, 1, 0, 0, 0, 1))) == grid.transform.to_gdal()
        assert bool(told.get("coordinateSystem", {}).get("wkt")) == (grid.crs is not None)
        if grid.crs is not None:
            assert CRS.from_wkt(told["coordinateSystem"]["wkt"]) == grid.crs
        assert {band["noDataValue"] for band in told["bands"]} == {255}


@pytest.fixture(scope="module")
def python312() -> Path:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import readers_312
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    found: Path | None = readers_312.find_python()
    if found is None:
        pytest.skip("no Python 3.12 at hand")
    return found


def run_312(python: Path, *more: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "readers_312.py"), "--python", str(python), *more],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 3:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rasterio_1_5_on_python_3_12_reads_every_kind_of_output(python312: Path, tmp_path: Path) -> None:
    arrays = {}
    for name in GRIDS:
        for file_format in ("cog", "gtiff"):
            paths, expected, _ = write_maps(tmp_path, name, file_format)
            arrays |= {path.name: expected[kind] for kind, path in paths.items()}
    with open(tmp_path / "expected.npz", "wb") as file:
        np.savez(file, **arrays)
    run_312(python312, "--read", str(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_python_3_12_with_rasterio_1_5_makes_the_same_bytes(python312: Path) -> None:
    run_312(python312)
