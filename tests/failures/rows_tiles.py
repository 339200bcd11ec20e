"""Failures of tiles, of nodata and of size: rows 15 to 17 and 19 to 21."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from tests.conftest import TEN_METRES
from tests.failures.case import Case, Done, Failure, Made
from tests.failures.scenes import NODATA_DN, TAG, draw, numbers, red, write_red
from tests.failures.shell import CHILD, ROOT, Shell

MEMORY_BYTES = 1_500_000_000
"""What a run of any size may take (goal G8 of the reliability design)."""

GROWTH_BYTES = 60_000_000
"""What 16 times the rows may take more than one time the rows: allocators differ from run to run."""

HUGE_PX, PATCH_PX = 100_000, 1_000
PATCHES = ((0, 0), (49_700, 30_123), (99_000, 99_000))
"""Row and column of what is written into the huge scene; all else is nodata that takes no room."""

MEASURED = """
import atexit, resource, sys
from geoseg_cli.cli import main
atexit.register(lambda: print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.__stderr__))
main(sys.argv[1:])
"""


def constant(folder: Path) -> Made:
    return write_red(folder / "scene.tif", np.full((200, 170), 3, np.uint8))


def confidence_has_no_seam(shell: Shell, made: Made) -> None:
    """One class everywhere has one confidence: the softmax of its four logits at x = 3."""
    logits = np.arange(4) * 3 - np.arange(4) ** 2 / 2
    right = np.exp(logits[3]) / np.exp(logits).sum()
    with rasterio.open(shell.folder / "out" / "confidence.tif") as file:
        assert set(np.unique(file.read(1))) == {round(250 * right)}


def empty(folder: Path) -> Made:
    return write_red(folder / "scene.tif", np.full((90, 70), 255, np.uint8))


def sparse(folder: Path, side: int, patches: tuple[tuple[int, int], ...] = ()) -> Made:
    """A square of nodata that takes hardly any room, with patches of random classes."""
    profile: dict[str, Any] = {"dtype": "uint16", "nodata": NODATA_DN, "crs": "EPSG:32631", "transform": TEN_METRES,
                               "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
                               "sparse_ok": True, "bigtiff": "yes"}  # fmt: skip
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", count=1, height=side, width=side, **profile
    ) as file:  # fmt: skip
        file.descriptions, file.scales = ("red",), (TAG[0],)
        for seed, (row, col) in enumerate(patches):
            pixels = numbers(draw(PATCH_PX, PATCH_PX, seed))
            file.write(pixels, 1, window=Window(col, row, PATCH_PX, PATCH_PX))
    return Made(folder / "scene.tif")


def run_measured(arguments: list[str]) -> tuple[Done, int]:
    """Run in a process of its own; also its largest resident memory in bytes."""
    process = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, cwd=ROOT, check=False,
        env={"PATH": "/usr/bin:/bin", **CHILD},
    )  # fmt: skip
    err, _, peak = process.stderr.rpartition("peak ")
    return Done(process.returncode, process.stdout, err), int(re.sub(r"\D.*", "", peak, flags=re.DOTALL)) * 1024


def in_the_memory_of_a_small_one(shell: Shell, made: Made, arguments: list[str]) -> Done:
    """A sixteenth of the scene is run first, for comparison."""
    small = write_red(shell.folder / "small.tif", draw(1_024, 512))
    few = [str(small.scene) if word == str(made.scene) else word for word in arguments]
    few[few.index("-o") + 1] = str(shell.folder / "small_map.tif")
    _, before = run_measured(few)
    done, peak = run_measured(arguments)
    assert peak - before < GROWTH_BYTES
    return done


def within_the_bound(shell: Shell, made: Made, arguments: list[str]) -> Done:
    done, peak = run_measured(arguments)
    print(f"peak of resident memory: {peak / 1e6:.0f} MB")
    assert peak < MEMORY_BYTES
    return done


def patches_are_right_and_the_rest_is_empty(shell: Shell, made: Made) -> None:
    with rasterio.open(shell.output) as file:
        assert file.shape == (HUGE_PX, HUGE_PX)
        counts = np.zeros(256, np.int64)
        for row in range(0, HUGE_PX, 2_000):
            rows = Window(0, row, HUGE_PX, min(2_000, HUGE_PX - row))
            counts += np.bincount(file.read(1, window=rows).ravel(), minlength=256)
        for seed, (row, col) in enumerate(PATCHES):
            found = file.read(1, window=Window(col, row, PATCH_PX, PATCH_PX))
            np.testing.assert_array_equal(found, draw(PATCH_PX, PATCH_PX, seed))
    right = sum(np.bincount(draw(PATCH_PX, PATCH_PX, seed).ravel(), minlength=256) for seed in range(len(PATCHES)))
    right[255] += HUGE_PX**2 - len(PATCHES) * PATCH_PX**2
    np.testing.assert_array_equal(counts, right)


def cube_is_larger_than_4_gb(shell: Shell, made: Made) -> None:
    assert (shell.folder / "out" / "probabilities.tif").stat().st_size > 2**32
    cube_is_a_bigtiff(shell, made, (0, 30_000))


def cube_is_a_bigtiff(shell: Shell, made: Made, rows: tuple[int, ...] = (0,)) -> None:
    """Its largest probability is that of the map's class."""
    path = shell.folder / "out" / "probabilities.tif"
    with path.open("rb") as stream:
        assert stream.read(4) == b"II+\0"
    with rasterio.open(path) as file, rasterio.open(shell.output) as labels:
        for row in rows:
            window = Window(row, row, min(PATCH_PX, file.width), min(PATCH_PX, file.height))
            chosen = file.read(window=window).argmax(axis=0)
            answer = labels.read(1, window=window)
            np.testing.assert_array_equal(chosen[answer != 255], answer[answer != 255])


ROWS = (
    Failure(
        15, "The scene is smaller than a tile, one pixel, one row", "Mirrors it into the tile; the map has its shape.",
        tuple(
            Case(f"{height}_x_{width}", f"{height} x {width} px, tiles of 64 px",
                 lambda f, height=height, width=width: write_red(f / "scene.tif", draw(height, width)))
            for height, width in ((1, 1), (1, 300), (300, 1), (2, 3), (63, 65), (128, 64))
        ),
        ("tests/test_predict.py::test_an_engine_that_returns_its_input_gives_back_the_scene",
         "tests/test_batches.py::test_a_short_scene_is_mirrored_into_the_padding_which_stays_invalid"),
    ),
    Failure(
        16, "The last rows and columns are missing",
        "The last tile ends at the edge or reaches beyond it, so every pixel is covered.",
        tuple(
            Case(f"{height}_x_{width}", f"{height} x {width} px, tiles of 64 px that overlap by 16",
                 lambda f, height=height, width=width: write_red(f / "scene.tif", draw(height, width, 1, 1.0)))
            for height, width in ((97, 131), (65, 193))
        ),
        ("tests/test_tiles.py::test_every_pixel_is_covered_and_no_window_leaves_the_scene",
         "tests/test_tiles.py::test_the_last_tile_ends_at_the_edge_and_begins_where_the_network_steps"),
    ),
    Failure(
        17, "Seams at the borders of tiles",
        "Blends overlaps by weights that fall towards inner edges. How much a network's answer still depends on where"
        " tiles lie is measured by `geoseg bench --overlap`.",
        tuple(
            Case(blend, f"a scene of one class, --blend {blend}", constant,
                 ("--blend", blend, "--confidence", "{folder}/out/confidence.tif"), after=confidence_has_no_seam)
            for blend in ("hann", "linear", "trim")
        ),
        ("tests/test_mosaic.py::test_constant_logits_give_a_constant_mask_with_the_softmax_as_confidence",
         "tests/test_seam_figures.py::test_a_seam_at_the_middles_shows_there_and_not_at_the_edges"),
    ),
    Failure(
        19, "Classes in areas without data", "Nodata in is nodata out, exactly; nothing that is valid gets lost.",
        (
            Case("holes", "30 % of random pixels are nodata", red),
            Case("nothing", "a scene of nodata", empty, ("--radiometry", "dn")),
        ),
        ("tests/test_predict.py::test_an_all_nodata_scene_runs_no_engine_and_gives_all_nodata",
         "tests/test_mosaic.py::test_tiles_that_agree_give_back_the_scene_and_nodata_exactly"),
    ),
    Failure(
        20, "The scene is huge",
        "Memory grows with the width of the scene and not with its height. A small file that declares a huge scene is"
        " refused unless --max-pixels allows it.",
        (
            Case("declared", "sparse file of 100,000 x 100,000 px", lambda f: sparse(f, HUGE_PX), code=65,
                 message=("100000 x 100000 px",), remedy=("--max-pixels 10000000000",)),
            Case("higher", "16,384 rows of 512 px, compared with 1,024 rows",
                 lambda f: write_red(f / "scene.tif", draw(16_384, 512), compress="deflate", tiled=True),
                 ("--tile", "256", "--overlap", "16"), run=in_the_memory_of_a_small_one, is_slow=True),
            Case("mapped", "sparse file of 100,000 x 100,000 px with three patches of classes; at most 1.5 GB resident",
                 lambda f: sparse(f, HUGE_PX, PATCHES),
                 ("--max-pixels", "10000000000", "--tile", "512", "--overlap", "16"),
                 run=within_the_bound, after=patches_are_right_and_the_rest_is_empty, is_slow=True),
        ),
        ("tests/test_mosaic.py::test_memory_is_some_tile_heights_of_rows_whatever_the_height_of_the_scene",
         "tests/results/test_raster.py::test_memory_is_one_row_of_blocks_however_high_the_raster"),
    ),
    Failure(
        21, "An output larger than 4 GB", "Becomes a BigTIFF.",
        (Case("small", "what is done then, at 900 x 700 px: --probabilities without compression, BigTIFF",
              lambda f: red(f, 900, 700), ("--co", "COMPRESS=NONE", "--co", "BIGTIFF=YES", "--probabilities",
                                           "{folder}/out/probabilities.tif"), after=cube_is_a_bigtiff),
         Case("probabilities", "sparse file of 33,000 x 33,000 px, --probabilities without compression: 4.4 GB",
              lambda f: sparse(f, 33_000, ((0, 0), (30_000, 30_000))),
              ("--max-pixels", "1089000000", "--tile", "512", "--overlap", "16", "--co", "COMPRESS=NONE",
               "--probabilities",
               "{folder}/out/probabilities.tif"), after=cube_is_larger_than_4_gb, is_slow=True),),
    ),
)  # fmt: skip
