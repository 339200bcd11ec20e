"""Quality masks of Sentinel-2 bands: what is lost there is lost in the scene, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import InputError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import SceneOptions, open_scene
from tests.scenes.safe_fixtures import (
    ALL_MINUS_1000,
    SIDES_PX,
    Text,
    native_images,
    write_masks,
    write_safe,
    zip_folder,
)

L1C = Text("L1C", "05.09", ALL_MINUS_1000)
L2A = Text("L2A", "05.09", ALL_MINUS_1000)
BANDS = ("blue", "red", "swir16")
SPEC = InputSpec(BANDS, (), (0.25, 0.5, 0.75), (1.0, 1.0, 1.0))
LOST = (0, 2, 4, 5)
"""Layers from 0: ancillary lost, image lost, defective, no data."""
SATURATED = 7


def marks(side: int, seed: int = 0) -> npt.NDArray[Any]:
    """(8, H, W) with about 2 % of the pixels marked in each layer, all of them apart."""
    kinds = np.random.default_rng(seed).integers(0, 400, (side, side))
    return np.stack([kinds < 8 if layer == 0 else (kinds // 8 == layer) for layer in range(8)])


def repeated(mask: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    return mask.repeat(times, axis=-2).repeat(times, axis=-1)


def product(folder: Path, text: Text = L1C, **masks: npt.NDArray[Any]) -> Path:
    root = write_safe(folder, text, native_images(text.level, np.random.default_rng(0), 1000))
    write_masks(root, text, masks)
    return root


@pytest.mark.parametrize("is_zip", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("text", [L1C, L2A], ids=["L1C", "L2A"])
def test_lost_defective_and_empty_pixels_of_used_bands_are_lost_and_degraded_ones_are_not(
    tmp_path: Path, text: Text, is_zip: bool
) -> None:
    fine, coarse, unused = marks(SIDES_PX[10]), marks(SIDES_PX[20], 1), np.ones((8, 120, 120), bool)
    root = product(tmp_path, text, B02=fine, B11=coarse, B03=unused)
    root = zip_folder(root, tmp_path / "product.zip") if is_zip else root
    wanted = ~(fine[list(LOST)].any(axis=0) | repeated(coarse[list(LOST)].any(axis=0), 2))
    assert 0.5 < wanted.mean() < 0.95
    with open_scene(root, SPEC) as scene:
        np.testing.assert_array_equal(scene.read(scene.grid.window).valid, wanted)
        part = Window(33, 21, 50, 71)
        np.testing.assert_array_equal(scene.read(part).valid, wanted[33:83, 21:92])
        assert "; lost, defective or no data in MSK_QUALIT" in scene.nodata_reason
        assert scene.warnings == ()


def test_saturated_pixels_of_the_mask_are_lost_where_saturated_numbers_are(tmp_path: Path) -> None:
    mask = marks(SIDES_PX[10])
    root = product(tmp_path, B02=mask)
    with open_scene(root, SPEC, SceneOptions(saturated=False)) as scene:
        valid = scene.read(scene.grid.window).valid
    np.testing.assert_array_equal(valid, ~(mask[list(LOST)].any(axis=0) | mask[SATURATED]))
    assert mask[SATURATED].any()


@pytest.mark.parametrize("side", [60, 20], ids=["20 m", "60 m"])
def test_a_mask_with_coarser_pixels_than_its_band_is_repeated(tmp_path: Path, side: int) -> None:
    mask = marks(side)
    with open_scene(product(tmp_path, B02=mask), SPEC) as scene:
        valid = scene.read(scene.grid.window).valid
    np.testing.assert_array_equal(valid, ~repeated(mask[list(LOST)].any(axis=0), 120 // side))


def test_on_a_coarser_grid_a_pixel_with_a_lost_part_is_lost(tmp_path: Path) -> None:
    mask = marks(SIDES_PX[10])
    with open_scene(product(tmp_path, B02=mask), SPEC, gsd_m=20.0) as scene:
        valid = scene.read(scene.grid.window).valid
    lost = mask[list(LOST)].any(axis=0)
    np.testing.assert_array_equal(valid, ~lost.reshape(60, 2, 60, 2).any(axis=(1, 3)))


def test_where_any_band_is_enough_a_mask_takes_its_own_band_alone(tmp_path: Path) -> None:
    mask = marks(SIDES_PX[10])
    lost = mask[list(LOST)].any(axis=0)
    with open_scene(product(tmp_path, B02=mask), SPEC, SceneOptions(valid="any")) as scene:
        patch = scene.read(scene.grid.window)
    assert patch.valid.all()
    np.testing.assert_array_equal(np.isnan(patch.pixels[0]), lost)
    assert np.isfinite(patch.pixels[1:]).all()


def test_a_mask_that_is_listed_and_not_there_is_told_and_the_others_count(tmp_path: Path) -> None:
    root = write_safe(tmp_path, L1C, native_images("L1C", np.random.default_rng(0), 1000))
    mask = marks(SIDES_PX[10])
    write_masks(root, L1C, {"B02": mask}, ["B02", "B04", "B11"])
    with open_scene(root, SPEC) as scene:
        assert scene.warnings == ("the product lists quality masks (MSK_QUALIT) of B04, B11 that are not there",)
        np.testing.assert_array_equal(scene.read(scene.grid.window).valid, ~mask[list(LOST)].any(axis=0))


def test_a_mask_that_nothing_lists_is_not_read(tmp_path: Path) -> None:
    root = write_safe(tmp_path, L1C, native_images("L1C", np.random.default_rng(0), 1000))
    write_masks(root, L1C, {"B02": np.ones((8, 120, 120))})
    next(root.rglob("MTD_TL.xml")).unlink()
    with open_scene(root, SPEC) as scene:
        assert scene.read(scene.grid.window).valid.all()
        assert "MSK_QUALIT" not in scene.nodata_reason


def test_a_mask_with_too_few_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MSK_QUALIT_B02.jp2 has 5 bands, it needs 8"):
        open_scene(product(tmp_path, B02=np.zeros((5, 120, 120))), SPEC)


@pytest.mark.parametrize("name", ["../../../etc/x", "/etc/x", "GRANULE/../../x", "a b"])
def test_mask_names_that_lead_out_of_the_product_are_refused(tmp_path: Path, name: str) -> None:
    root = product(tmp_path, B02=np.zeros((8, 120, 120)))
    metadata = next(root.rglob("MTD_TL.xml"))
    metadata.write_text(f'<a><MASK_FILENAME bandId="1" type="MSK_QUALIT">{name}.jp2</MASK_FILENAME></a>')
    with pytest.raises(InputError, match="may lead out of the product"):
        open_scene(root, SPEC)


def test_a_mask_that_is_a_link_out_of_the_product_is_refused(tmp_path: Path) -> None:
    root = product(tmp_path, B02=np.zeros((8, 120, 120)))
    mask = next(root.rglob("MSK_QUALIT_B02.jp2"))
    mask.rename(tmp_path / "elsewhere.jp2")
    mask.symlink_to(tmp_path / "elsewhere.jp2")
    with pytest.raises(InputError, match="leads out of the product"):
        open_scene(root, SPEC)


def test_a_mask_that_changes_while_the_scene_is_read_is_noticed(tmp_path: Path) -> None:
    root = product(tmp_path, B02=np.zeros((8, 120, 120)))
    with open_scene(root, SPEC) as scene:
        assert next(root.rglob("MSK_QUALIT_B02.jp2")) in scene.identities
