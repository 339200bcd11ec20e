"""What becomes of a finished map: threshold, cleaning, legend, adjusted areas and format, through the whole path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rio_cogeo import cog_validate
from scipy import ndimage

from geoseg_cli.bundle import Bundle, ModelCard, find_bundle
from geoseg_cli.catalog import find_mapping, legends
from geoseg_cli.cloud_masking import HiddenAs
from geoseg_cli.engines.fake_engine import FakeEngine, IdentityEngine
from geoseg_cli.errors import GeosegError, InputError, ModelError, OutputError, UsageError
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import CloudModel, predict_scene
from geoseg_cli.results.clean_map import Cleaning
from geoseg_cli.results.sample_counts import FROM_CARD, SampleCounts
from geoseg_cli.results.verify import verify_map
from tests.fakes.bundles import card_fields, fake_bundle
from tests.results.test_cleaning import plain_majority
from tests.results.test_sieve import plain_sieve
from tests.test_predict import read, write_scene

Labels = npt.NDArray[np.uint8]
LAND = legends()["esa-worldcover"]


def patches(height: int, width: int, classes: int, seed: int = 0) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """Class numbers in patches with stray pixels, and where there is a value."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (height // 6 + 1, width // 6 + 1))
    labels = np.kron(coarse, np.ones((6, 6), np.int64))[:height, :width]
    stray = rng.random(labels.shape) < 0.1
    labels[stray] = rng.integers(0, classes, labels.shape)[stray]
    return labels.astype(np.uint8), rng.random((height, width)) > 0.02


def cleaned_plainly(labels: Labels, cleaning: Cleaning, table: Mapping[int, int]) -> Labels:
    """The rules of docs/cleaning.md for a map of cloudsen12, on the whole map at once."""
    if cleaning.min_object_px is not None:
        parts, _ = ndimage.label(np.isin(labels, (1, 2)))
        labels = np.where((parts > 0) & (np.bincount(parts.ravel())[parts] < cleaning.min_object_px), 0, labels)
    if cleaning.dilate_px is not None:
        free, grown = ~np.isin(labels, (1, 2, 255)), labels.copy()
        for value in (2, 1):  # thick cloud last, so that it is on top
            near = ndimage.distance_transform_edt(labels != value) <= cleaning.dilate_px
            grown[free & near] = value
        labels = grown
    labels = np.vectorize({255: 255, **table}.__getitem__)(labels).astype(np.uint8)
    if cleaning.majority_px is not None:
        labels = plain_majority(labels, cleaning.majority_px // 2)
    if cleaning.sieve_px is not None:
        labels = plain_sieve(labels, cleaning.sieve_px)
    return labels


SAME = {0: 0, 1: 1, 2: 2, 3: 3}
CLOUD_CASES = [
    (Cleaning(min_object_px=30), None, SAME),
    (Cleaning(dilate_px=2), None, SAME),
    (Cleaning(), "cloud-binary", {0: 0, 1: 1, 2: 1, 3: 0}),
    (Cleaning(), "cloud-valid", {0: 1, 1: 0, 2: 0, 3: 0}),
    (Cleaning(), "sentinel-2-scl", {0: 7, 1: 9, 2: 10, 3: 3}),
    (Cleaning(majority_px=5), None, SAME),
    (Cleaning(sieve_px=20), None, SAME),
    (Cleaning(40, 3), "cloud-binary", {0: 0, 1: 1, 2: 1, 3: 0}),
    (Cleaning(40, 1, None, 3, 25), "sentinel-2-scl", {0: 7, 1: 9, 2: 10, 3: 3}),
]


@pytest.mark.parametrize(("cleaning", "target", "table"), CLOUD_CASES)
def test_each_option_and_all_together_do_what_plain_arrays_do(
    tmp_path: Path, cleaning: Cleaning, target: str | None, table: dict[int, int]
) -> None:
    numbers, valid = patches(560, 48, 4)
    write_scene(tmp_path / "scene.tif", numbers.astype(int), valid)
    mapping = find_mapping("cloudsen12", target) if target else None
    options = PredictOptions(cleaning=replace(cleaning, mapping=mapping), confidence=tmp_path / "c.tif")
    report = predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)
    raw = np.where(valid, numbers, 255).astype(np.uint8)
    expected = cleaned_plainly(raw, cleaning, table)
    assert (expected != raw).any(), "the case does something"
    found = read(tmp_path / "map.tif")[0]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read(tmp_path / "c.tif")[0] == 255, ~valid)
    legend = legends()[target or "cloudsen12"]
    assert {area.name: area.pixels for area in report.areas} == {
        one.name: int((expected == one.value).sum()) for one in legend.classes
    }
    assert report.valid_pixels == (expected != 255).sum()
    verdict = verify_map(tmp_path / "map.tif")
    assert verdict.is_intact, verdict.problems
    with rasterio.open(tmp_path / "map.tif") as made:
        tags, colors = made.tags(), made.colormap(1)
    assert tags["GEOSEG_LEGEND"] == legend.name
    assert json.loads(tags["GEOSEG_CLASSES"]) == legend.stac_classes()
    assert tags["GEOSEG_PIXELS_SHA256"] == hashlib.sha256(expected.tobytes()).hexdigest()
    assert {one.value: colors[one.value][:3] for one in legend.classes} == {c.value: c.rgb for c in legend.classes}
    done = json.loads(tags["GEOSEG_CLEANING"])
    assert done == report.to_json()["cleaning"]
    assert done.get("legend", {}).get("losses", []) == (list(mapping.losses) if mapping else [])
    with rasterio.open(tmp_path / "c.tif") as confidence:
        assert "GEOSEG_CLEANING" not in confidence.tags(), "nothing was done to it"


def test_land_cover_becomes_another_legend_and_what_that_lacks_becomes_nodata(tmp_path: Path) -> None:
    numbers, valid = patches(100, 90, 11)
    # A tenth of the usual step, so that eleven classes fit below the reflectance that is clipped.
    write_scene(tmp_path / "scene.tif", numbers / 10, valid)
    engine = FakeEngine(11, lambda pixels: IdentityEngine(11).run(pixels * 10))
    mapping = find_mapping("esa-worldcover", "dynamic-world")
    options = PredictOptions(cleaning=Cleaning(mapping=mapping, majority_px=3, sieve_px=5))
    bundle = fake_bundle(legend=LAND, task="land-cover")
    report = predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", bundle, engine, options)
    # In the order of esa-worldcover: tree, shrub, grass, crop, built, bare, snow, water, wetland, mangroves, moss.
    becomes = np.array([1, 5, 2, 4, 6, 7, 8, 0, 3, 3, 255], np.uint8)
    recoded = np.where(valid, becomes[numbers], 255).astype(np.uint8)
    expected = plain_sieve(plain_majority(recoded, 1), 5)
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], expected)
    assert report.valid_pixels == (expected != 255).sum() < valid.sum(), "moss and lichen are lost"
    assert verify_map(tmp_path / "map.tif").is_intact


def test_cloud_cover_of_the_item_counts_the_clouds_of_every_schema_that_tells_them(tmp_path: Path) -> None:
    numbers, valid = patches(40, 40, 4)
    write_scene(tmp_path / "scene.tif", numbers.astype(int), valid)
    expected = 100 * (np.isin(numbers, (1, 2)) & valid).sum() / valid.sum()
    for target, is_told in (("cloud-binary", True), ("sentinel-2-scl", True), ("cloud-valid", False)):
        options = PredictOptions(cleaning=Cleaning(mapping=find_mapping("cloudsen12", target)), overwrite=True)
        predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)
        found = json.loads((tmp_path / "map.json").read_text())["properties"].get("eo:cloud_cover")
        assert found == (pytest.approx(expected, abs=1e-5) if is_told else None), target


LOGITS = np.log(
    np.array([[0.7, 0.1, 0.15, 0.05], [0.2, 0.35, 0.05, 0.4], [0.5, 0.2, 0.25, 0.05], [0.3, 0.1, 0.2, 0.4]], np.float32)
)
"""What the engine says of pixels of each number: clear, thick, thin, shadow."""


def by_number(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits of LOGITS for the number that stands in channel 0."""
    return np.moveaxis(LOGITS[np.clip(np.rint(pixels[:, 0]), 0, 3).astype(int)], -1, 1)


@pytest.mark.parametrize(
    ("threshold", "classes"),
    [(None, [0, 3, 0, 3]), (0.4, [0, 1, 2, 3]), (0.45, [0, 3, 2, 3]), (0.2, [2, 1, 2, 2]), (1.0, [0, 3, 0, 3])],
)
def test_the_threshold_decides_what_is_cloud_and_the_confidence_follows(
    tmp_path: Path, threshold: float | None, classes: list[int]
) -> None:
    numbers, valid = patches(90, 130, 4)
    write_scene(tmp_path / "scene.tif", numbers.astype(int), valid)
    # 0.1 + 0.15, 0.35 + 0.05, 0.2 + 0.25 and 0.1 + 0.2 are cloud.
    options = PredictOptions(
        cloud_threshold=threshold, confidence=tmp_path / "c.tif", probabilities=tmp_path / "p.tif", sidecars=False
    )
    predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), FakeEngine(4, by_number), options)
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], np.where(valid, np.array(classes)[numbers], 255))
    sure = np.exp(LOGITS)[np.arange(4), classes][numbers]
    assert np.abs(read(tmp_path / "c.tif")[0].astype(float) - 250 * sure)[valid].max() <= 0.51
    assert np.abs(read(tmp_path / "p.tif").astype(float) - 250 * np.exp(LOGITS[numbers]).transpose(2, 0, 1))[
        :, valid
    ].max() <= 0.51  # fmt: skip
    for name in ("map.tif", "c.tif"):
        with rasterio.open(tmp_path / name) as made:
            assert made.tags().get("GEOSEG_CLOUD_THRESHOLD") == (f"{threshold:g}" if threshold else None)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([32, 64]), st.integers(0, 16), st.integers(1, 3))
def test_a_cleaned_map_does_not_depend_on_tiles_or_batches(seed: int, tile: int, overlap: int, batch: int) -> None:
    import tempfile

    numbers, valid = patches(75, 66, 4, seed)
    cleaning = Cleaning(4, 2, find_mapping("cloudsen12", "sentinel-2-scl"), 3, 4)
    with tempfile.TemporaryDirectory() as folder:
        scene, output = Path(folder) / "scene.tif", Path(folder) / "map.tif"
        write_scene(scene, numbers.astype(int), valid)
        options = PredictOptions(tile_px=tile, overlap_px=overlap, batch=batch, cleaning=cleaning, sidecars=False)
        predict_scene(scene, output, fake_bundle(), IdentityEngine(4), options)
        raw = np.where(valid, numbers, 255).astype(np.uint8)
        np.testing.assert_array_equal(read(output)[0], cleaned_plainly(raw, cleaning, {0: 7, 1: 9, 2: 10, 3: 3}))


def test_without_cleaning_nothing_speaks_of_it(tmp_path: Path) -> None:
    numbers, valid = patches(30, 30, 4)
    write_scene(tmp_path / "scene.tif", numbers.astype(int), valid)
    report = predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), IdentityEngine(4))
    with rasterio.open(tmp_path / "map.tif") as made:
        assert not {"GEOSEG_CLEANING", "GEOSEG_FORMAT", "GEOSEG_CLOUD_THRESHOLD"} & set(made.tags())
    fields = report.to_json()
    assert (fields["cleaning"], fields["cloud_threshold"], fields["legend"]) == ({}, None, "cloudsen12")
    assert (fields["format"], fields["adjusted"]) == ("cog", None)


@pytest.mark.parametrize("raster_format", ["cog", "gtiff"])
def test_cleaning_in_either_format_gives_the_same_pixels_and_tags(tmp_path: Path, raster_format: Any) -> None:
    numbers, valid = patches(1100, 600, 4)
    write_scene(tmp_path / "scene.tif", numbers.astype(int), valid)
    options = PredictOptions(
        cleaning=Cleaning(dilate_px=1), format=raster_format, probabilities=tmp_path / "p.tif", tile_px=512
    )
    predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)
    raw = np.where(valid, numbers, 255).astype(np.uint8)
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], cleaned_plainly(raw, options.cleaning, SAME))
    verdict = verify_map(tmp_path / "map.tif")
    assert (verdict.problems, verdict.format) == ({}, raster_format)
    item = json.loads((tmp_path / "map.json").read_text())
    for name, key in (("map.tif", "labels"), ("p.tif", "probabilities")):
        assert cog_validate(tmp_path / name, quiet=True)[0] == (raster_format == "cog")
        assert item["assets"][key]["type"].endswith("cloud-optimized") == (raster_format == "cog")
        with rasterio.open(tmp_path / name) as made:
            assert made.tags().get("GEOSEG_FORMAT") == (None if raster_format == "cog" else "gtiff")
            assert made.overviews(1) == [2, 4]


MATRIX = "map/reference,clear,cloud\nclear,8,2\ncloud,1,9\n"


def test_adjusted_areas_are_those_of_the_finished_map(tmp_path: Path) -> None:
    numbers, valid = patches(60, 60, 4)
    write_scene(tmp_path / "scene.tif", numbers.astype(int), valid)
    (tmp_path / "matrix.csv").write_text(MATRIX)
    cleaning = Cleaning(mapping=find_mapping("cloudsen12", "cloud-binary"))
    options = PredictOptions(cleaning=cleaning, accuracy=tmp_path / "matrix.csv")
    report = predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)
    clear, cloud = (area.hectares for area in report.areas)
    assert clear is not None
    assert cloud is not None
    found = report.to_json()["adjusted"]["classes"]
    assert [row["adjusted_ha"] for row in found] == pytest.approx(
        [0.8 * clear + 0.1 * cloud, 0.2 * clear + 0.9 * cloud]
    )


def test_a_table_that_lacks_a_class_of_the_map_costs_the_adjusted_areas_and_not_the_map(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", np.arange(16).reshape(4, 4) % 4, np.ones((4, 4), bool))
    (tmp_path / "matrix.csv").write_text("map/reference,clear,thick_cloud\nclear,8,2\nthick_cloud,1,9\n")
    options = PredictOptions(accuracy=tmp_path / "matrix.csv")
    report = predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)
    assert (tmp_path / "map.tif").is_file()
    fields = report.to_json()
    assert fields["adjusted"] is None
    assert "thin_cloud, cloud_shadow" in fields["not_adjusted"]["message"]


def never(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    raise AssertionError("nothing must be computed")


@pytest.fixture
def small_scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif", np.zeros((20, 20), int), np.ones((20, 20), bool))


def refused(scene: Path, options: PredictOptions, **bundle: Any) -> GeosegError:
    """The error of a run that must end before anything is computed, and leave nothing."""
    before = {path.name for path in scene.parent.iterdir()}
    made = fake_bundle(**bundle)
    with pytest.raises(GeosegError) as caught:
        predict_scene(scene, scene.parent / "map.tif", made, FakeEngine(len(made.legend.classes), never), options)
    assert {path.name for path in scene.parent.iterdir()} == before
    return caught.value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (PredictOptions(cleaning=Cleaning(majority_px=4)), "majority window of 4"),
        (PredictOptions(cleaning=Cleaning(dilate_px=255)), "dilation of 255"),
        (PredictOptions(cleaning=Cleaning(sieve_px=0)), "--sieve 0"),
        (PredictOptions(cleaning=Cleaning(mapping=find_mapping("esa-worldcover", "aras400k"))), "does not fit"),
        (PredictOptions(cloud_threshold=0.0), "threshold of 0"),
        (PredictOptions(cloud_threshold=float("nan")), "threshold of nan"),
        (PredictOptions(format="gtiff", creation_options={"BLOCKSIZE": "512"}), "BLOCKSIZE"),
        (PredictOptions(creation_options={"compress": "LZW", "COMPRESS": "ZSTD"}), "twice"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_computed(
    small_scene: Path, options: PredictOptions, words: str
) -> None:
    error = refused(small_scene, options)
    assert isinstance(error, UsageError)
    assert words in error.message


def test_options_for_clouds_are_refused_for_land_cover(small_scene: Path) -> None:
    for options in (
        PredictOptions(cloud_threshold=0.5),
        PredictOptions(cleaning=Cleaning(min_object_px=3)),
        PredictOptions(cleaning=Cleaning(dilate_px=3)),
    ):
        error = refused(small_scene, options, legend=LAND, task="land-cover")
        assert isinstance(error, UsageError)
        assert "for clouds" in error.message


def test_a_table_that_does_not_fit_the_final_legend_is_refused_before_anything_is_computed(small_scene: Path) -> None:
    matrix = small_scene.with_name("matrix.csv")
    matrix.write_text(MATRIX)
    error = refused(small_scene, PredictOptions(accuracy=matrix))
    assert isinstance(error, InputError)
    assert "'cloud' is no class of cloudsen12" in error.message


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_table_for_a_scene_without_crs_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.zeros((20, 20), int), np.ones((20, 20), bool), crs=None)
    (tmp_path / "matrix.csv").write_text("map/reference,clear\nclear,5\n")
    error = refused(scene, PredictOptions(accuracy=tmp_path / "matrix.csv"))
    assert isinstance(error, InputError)
    assert "no areas" in error.message


def test_the_table_of_places_is_an_input_that_no_output_replaces(small_scene: Path) -> None:
    matrix = small_scene.with_name("map.tif")
    matrix.write_text("map/reference,clear\nclear,5\n")
    error = refused(small_scene, PredictOptions(accuracy=matrix, overwrite=True))
    assert isinstance(error, UsageError | OutputError)
    assert "both input and output" in error.message


@pytest.mark.parametrize("hidden_as", ["nodata", "class"])
def test_a_masked_map_is_cleaned_after_it_was_masked(tmp_path: Path, hidden_as: HiddenAs) -> None:
    numbers, valid = patches(80, 70, 3)
    write_scene(tmp_path / "scene.tif", numbers.astype(int), valid)
    clouds = CloudModel(fake_bundle(), FakeEngine(4, lambda pixels: _clouds_at(pixels, 2)), hidden_as)
    bundle = fake_bundle(legend=LAND, task="land-cover")
    options = PredictOptions(cleaning=Cleaning(sieve_px=12))
    predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", bundle, IdentityEngine(11), options, clouds=clouds)
    values = np.array([10, 20, 1 if hidden_as == "class" else 255], np.uint8)
    raw = np.where(valid, values[numbers], 255).astype(np.uint8)
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], plain_sieve(raw, 12))
    error = None
    try:
        again = replace(options, cloud_threshold=0.5, overwrite=True)
        predict_scene(tmp_path / "scene.tif", tmp_path / "map.tif", bundle, IdentityEngine(11), again, clouds=clouds)
    except UsageError as caught:
        error = caught
    assert error is not None
    assert "--threshold" in error.message


def _clouds_at(pixels: npt.NDArray[np.float32], number: int) -> npt.NDArray[np.float32]:
    """Thick cloud where channel 0 holds a number, clear elsewhere."""
    logits = np.zeros((len(pixels), 4, *pixels.shape[2:]), np.float32)
    is_cloud = np.rint(pixels[:, 0]) == number
    logits[:, 0], logits[:, 1] = ~is_cloud, is_cloud
    return logits


COUNTS = [[8, 2, 0, 0], [1, 9, 0, 0], [0, 3, 5, 2], [0, 0, 4, 6]]
"""Places that are called (rows) and are (columns) clear, thick cloud, thin cloud, shadow."""


def bundle_with_counts(counts: list[list[int]]) -> Bundle:
    fields = card_fields(legends()["cloudsen12"])
    confusion = {"data": "four made-up places", "places": 4, "counts": counts}
    fields["properties"]["mlm:hyperparameters"]["geoseg"]["confusion"] = confusion
    return Bundle(Path("fake-bundle"), ModelCard.model_validate(fields))


@pytest.mark.parametrize("target", [None, "cloud-binary"])
def test_areas_adjusted_by_the_card_are_those_of_a_table_of_the_same_counts(tmp_path: Path, target: str | None) -> None:
    numbers, valid = patches(60, 60, 4)
    scene = write_scene(tmp_path / "scene.tif", numbers.astype(int), valid)
    cleaning = Cleaning(mapping=find_mapping("cloudsen12", target) if target else None)
    names = ["clear", "thick_cloud", "thin_cloud", "cloud_shadow"]
    table, counts = names, np.array(COUNTS)
    if target:  # shadow counts as clear, both kinds of cloud as cloud
        groups = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])
        table, counts = ["clear", "cloud"], groups.T @ counts @ groups
    rows = [",".join([name, *map(str, row)]) for name, row in zip(table, counts, strict=True)]
    (tmp_path / "matrix.csv").write_text("\n".join([",".join(["map/reference", *table]), *rows]))
    found = []
    tables: list[Any] = [tmp_path / "matrix.csv", FROM_CARD]
    for accuracy in tables:
        options = PredictOptions(cleaning=cleaning, accuracy=accuracy, overwrite=True)
        report = predict_scene(scene, tmp_path / "map.tif", bundle_with_counts(COUNTS), IdentityEngine(4), options)
        found.append(report.to_json()["adjusted"])
    assert found[0]["classes"] == found[1]["classes"]
    assert "other places than this map" in found[1]["note"]
    assert "four made-up places" in found[1]["note"]
    assert "card" not in found[0]["note"]


def test_a_card_without_counts_is_refused_before_anything_is_computed(small_scene: Path) -> None:
    error = refused(small_scene, PredictOptions(accuracy=FROM_CARD))
    assert isinstance(error, ModelError)
    assert "no confusion matrix" in error.message
    assert "--accuracy FILE.csv" in error.hint


@pytest.mark.parametrize("counts", [[[1]], [[1, 2], [3]], [[0] * 4] * 4, [[-1] * 4] * 4])
def test_a_card_whose_counts_do_not_fit_its_classes_is_refused(tmp_path: Path, counts: list[list[int]]) -> None:
    fields = card_fields(legends()["cloudsen12"])
    confusion = {"data": "x", "places": 4, "counts": counts}
    fields["properties"]["mlm:hyperparameters"]["geoseg"]["confusion"] = confusion
    (tmp_path / "item.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match="card"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("name", ["landcover-lale", "cloud-lale"])
def test_shipped_cards_count_pixels_of_their_own_classes(name: str) -> None:
    bundle = find_bundle(name)
    samples = SampleCounts.of_card(bundle, bundle.legend)
    assert samples.values == bundle.legend.values
    assert samples.counts.sum() > 50_000
    # Better than chance, which a turned table of other classes would not be.
    assert np.trace(samples.counts) / samples.counts.sum() > 0.6
