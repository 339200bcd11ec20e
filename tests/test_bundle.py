"""Cards, bundles and the one normalisation."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.arrays import Arrays
from geoseg_cli.bundle import Bundle, InputSpec, ModelCard, bundle_folders, find_bundle
from geoseg_cli.catalog import legends
from geoseg_cli.cli import classify
from geoseg_cli.cli.request import DEFAULT_CLOUD_MODEL
from geoseg_cli.errors import InputMissingError, ModelError
from geoseg_cli.training.bundle_recipes import RECIPES
from tests.fakes.bundles import card_fields

SPEC = InputSpec(("red", "nir", "swir16"), ("nir", "swir16"), (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))


def test_normalisation_is_the_z_score_then_presence_planes() -> None:
    rng = np.random.default_rng(0)
    reflectance = rng.uniform(0, 1, (2, 5, 4)).astype(np.float32)
    valid = rng.random((5, 4)) > 0.3
    planes = SPEC.apply(reflectance, valid, (True, False, True))
    assert (planes.shape, planes.dtype) == ((5, 5, 4), np.float32)
    np.testing.assert_allclose(planes[0], np.where(valid, (reflectance[0] - 0.1) / 0.5, 0), rtol=1e-5, atol=1e-6)
    assert (planes[1] == 0).all()
    np.testing.assert_allclose(planes[2], np.where(valid, (reflectance[1] - 0.3) / 0.125, 0), rtol=1e-5, atol=1e-6)
    assert (planes[3] == 0).all()
    assert (planes[4] == 1).all()


def test_normalisation_clips_what_no_surface_reflects() -> None:
    extremes = np.array([-5, 0, 5], np.float32).reshape(1, 1, 3)
    planes = SPEC.apply(extremes, np.ones((1, 3), bool), (True, False, False))
    np.testing.assert_allclose(planes[0, 0], (np.array([-0.2, 0, 2.0]) - 0.1) / 0.5, rtol=1e-6)


@given(st.lists(st.booleans(), min_size=2, max_size=2), st.integers(1, 3))
def test_normalisation_of_a_batch_is_that_of_its_items(optional: list[bool], count: int) -> None:
    present = (True, *optional)
    rng = np.random.default_rng(1)
    reflectance = rng.random((count, sum(present), 3, 4), np.float32)
    valid = rng.random((count, 3, 4)) > 0.5
    together = SPEC.apply(reflectance, valid, present)
    for item in range(count):
        np.testing.assert_array_equal(together[item], SPEC.apply(reflectance[item], valid[item], present))


def test_nan_below_the_mask_never_reaches_the_network() -> None:
    reflectance = np.full((1, 2, 2), np.nan, np.float32)
    planes = SPEC.apply(reflectance, np.zeros((2, 2), bool), (True, False, False))
    assert np.isfinite(planes).all()


@given(st.lists(st.booleans(), min_size=2, max_size=2), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3]))
def test_tensors_are_normalised_to_the_same_bits(optional: list[bool], seed: int, invalid: float) -> None:
    present = (True, *optional)
    rng = np.random.default_rng(seed)
    reflectance = rng.normal(0.5, 1, (sum(present), 5, 7)).astype(np.float32)
    reflectance[rng.random(reflectance.shape) < 0.05] = np.nan
    reflectance[rng.random(reflectance.shape) < 0.05] = np.inf
    valid = rng.random((5, 7)) >= invalid
    spec = dataclasses.replace(SPEC, mean=tuple(rng.random(3)), stddev=tuple(rng.random(3) + 0.01))
    arrays = Arrays(torch)
    right = spec.apply(reflectance, valid, present)
    found = arrays.fetch(spec.apply(arrays.put(reflectance), valid, present, arrays))
    np.testing.assert_array_equal(found, right)
    known = ~np.isnan(right)
    assert found[known].tobytes() == right[known].tobytes()


def fields() -> dict[str, Any]:
    return copy.deepcopy(card_fields(legends()["cloudsen12"]))


def test_a_card_gives_contract_and_legend() -> None:
    card = ModelCard.model_validate(fields())
    assert card.input_spec.required == ("red",)
    assert card.input_spec.channels == 3
    assert card.legend == legends()["cloudsen12"]


def write_bundle(folder: Path, card: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "item.json").write_text(json.dumps(card))
    return folder


def test_unknown_fields_in_geosegs_part_are_refused(tmp_path: Path) -> None:
    card = fields()
    card["properties"]["mlm:hyperparameters"]["geoseg"]["radiometric_gain"] = 2
    with pytest.raises(ModelError, match="radiometric_gain"):
        Bundle.open(write_bundle(tmp_path / "b", card))


def test_another_value_scaling_than_the_known_one_is_refused(tmp_path: Path) -> None:
    card = fields()
    card["properties"]["mlm:input"][0]["value_scaling"][0] = {"type": "min-max", "minimum": 0, "maximum": 1}
    with pytest.raises(ModelError, match="value_scaling"):
        Bundle.open(write_bundle(tmp_path / "b", card))


def test_channels_that_do_not_add_up_are_refused() -> None:
    card = fields()
    card["properties"]["mlm:input"][0]["input"]["shape"] = [-1, 7, -1, -1]
    with pytest.raises(ModelError, match="7"):
        _ = ModelCard.model_validate(card).input_spec


def test_a_range_of_pixel_sizes_holds_the_models_own(tmp_path: Path) -> None:
    card = fields()
    extras = card["properties"]["mlm:hyperparameters"]["geoseg"]
    extras["gsd_range_m"] = [extras["gsd_m"], 3 * extras["gsd_m"]]
    assert Bundle.open(write_bundle(tmp_path / "b", card)).card.extras.gsd_range_m == tuple(extras["gsd_range_m"])
    extras["gsd_range_m"] = [2 * extras["gsd_m"], 3 * extras["gsd_m"]]
    with pytest.raises(ModelError, match="gsd_range_m"):
        Bundle.open(write_bundle(tmp_path / "c", card))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"type": "Feature"}'])
def test_a_damaged_card_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "item.json").write_text(text)
    with pytest.raises(ModelError, match=r"item\.json"):
        Bundle.open(tmp_path)


def test_a_folder_without_card_and_an_unknown_name_are_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        find_bundle(str(tmp_path))
    with pytest.raises(InputMissingError, match="nonsense"):
        find_bundle("nonsense")


def bundle_with_weights(tmp_path: Path, href: str, content: bytes) -> Bundle:
    card = fields()
    digest = hashlib.sha256(content).hexdigest()
    card["assets"]["weights"] = {"href": href, "file:checksum": "1220" + digest, "file:size": len(content)}
    return Bundle.open(write_bundle(tmp_path / "b", card))


def test_a_file_is_given_only_when_its_hash_is_the_cards(tmp_path: Path) -> None:
    bundle = bundle_with_weights(tmp_path, "w.bin", b"weights")
    path = bundle.folder / "w.bin"
    path.write_bytes(b"weights")
    assert bundle.file("weights") == path
    path.write_bytes(b"weightz")
    with pytest.raises(ModelError, match="SHA-256"):
        bundle.file("weights")


def test_a_file_outside_the_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    with pytest.raises(ModelError, match="folder"):
        bundle_with_weights(tmp_path, "../w.bin", b"weights").file("weights")


def test_a_symlink_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    bundle = bundle_with_weights(tmp_path, "w.bin", b"weights")
    (bundle.folder / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="folder"):
        bundle.file("weights")


@pytest.mark.parametrize("folder", bundle_folders(), ids=lambda folder: folder.name)
def test_a_shipped_bundle_is_whole(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.name == folder.name
    assert {"weights", "golden"} <= set(bundle.card.assets) <= {"weights", "onnx", "golden"}
    for asset in bundle.card.assets:
        assert bundle.file(asset).stat().st_size == bundle.card.assets[asset].size
    assert (folder / "README.md").is_file()
    assert 255 not in bundle.legend.values


def test_the_shipped_bundles_are_there_and_small() -> None:
    folders = bundle_folders()
    assert {folder.name for folder in folders} == set(RECIPES)
    total = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    assert total <= 60 * 2**20
    defaults = (find_bundle(name) for name in (classify.DEFAULT_MODEL, DEFAULT_CLOUD_MODEL))
    assert all("onnx" in bundle.card.assets for bundle in defaults)


@pytest.mark.parametrize("folder", bundle_folders(), ids=lambda folder: folder.name)
def test_the_readme_of_a_shipped_bundle_says_what_its_card_says(folder: Path) -> None:
    from geoseg_cli.export.readme import describe_in_words

    card = Bundle.open(folder).card
    assert (folder / "README.md").read_text() == describe_in_words(card)
    assert card.extras.training["data"]
    assert set(card.extras.metrics) >= {"network", "forest", "notes"}
    assert card.extras.metrics["weights_sha256"] == Bundle.open(folder).sha256("weights")


def test_a_presence_plane_of_a_band_that_is_not_there_is_refused(tmp_path: Path) -> None:
    card = fields()
    card["properties"]["mlm:input"][0]["bands"][2]["expression"] = "swir16"
    with pytest.raises(ModelError, match="swir16"):
        _ = Bundle.open(write_bundle(tmp_path / "b", card)).input_spec
