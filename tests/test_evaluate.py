"""A bundle against labels: the same answers as a map, right figures, intervals by place, a temperature that fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window as RasterioWindow
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, log_loss

from geoseg_cli.bundle import Bundle, ConfidenceCalibration, bundle_folders
from geoseg_cli.calibration import Reliability, reliability
from geoseg_cli.catalog import legends
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.engines.fake_engine import ConstantEngine, FakeEngine, IdentityEngine
from geoseg_cli.errors import BandError, GridError, InputError, InputMissingError
from geoseg_cli.evaluate import (
    UNKNOWN_SENSOR,
    EvaluateOptions,
    Scores,
    bands_left_out,
    evaluate_folder,
    fit_bundle,
    place_intervals,
)
from geoseg_cli.evaluation_page import reliability_svg, report_html
from geoseg_cli.export.card import store_calibration
from geoseg_cli.export.readme import describe_in_words
from geoseg_cli.job import PredictOptions
from geoseg_cli.metrics import Confusion
from geoseg_cli.predict import predict_scene
from geoseg_cli.scenes import SceneOptions
from tests.fakes.bundles import STEP, card_fields, fake_bundle
from tests.test_labels import write
from tests.test_predict import UTM, write_scene

SAMPLES = Path(__file__).parents[1] / "sample_scenes"
LEGEND = legends()["cloudsen12"]


def noisy(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits that depend on the pixel alone, for the right class of about half of the pixels."""
    seen = pixels[:, :1]
    return np.concatenate([np.cos(seen * 2.3 + k) * 2 - abs(seen - k) / 3 for k in range(4)], axis=1)


def add_pair(
    folder: Path, name: str, seen: npt.NDArray[np.int_], truth: npt.NDArray[Any], valid: Any = True, **profile: Any
) -> None:
    """A scene whose pixels reach the engine as the numbers ``seen``, and its labels."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_scene(folder / f"{name}.tif", seen, np.broadcast_to(valid, seen.shape), **profile)
    write(folder / f"{name}_label.tif", truth.astype(np.uint8), **profile)


def random_pairs(folder: Path, places: int, height: int = 40, width: int = 30) -> tuple[list[Any], list[Any]]:
    """One pair per place; the truth differs from what is seen in a third of the pixels, and is unknown in a tenth."""
    rng = np.random.default_rng(places)
    seen = [rng.integers(0, 4, (height, width)) for _ in range(places)]
    truths = [np.where(rng.random(one.shape) < 0.33, rng.integers(0, 4, one.shape), one) for one in seen]
    truths = [np.where(rng.random(one.shape) < 0.1, 255, one) for one in truths]
    for number, (one, truth) in enumerate(zip(seen, truths, strict=True)):
        add_pair(folder, f"place{number}/scene", one, truth)
    return seen, truths


def scores(counts: npt.ArrayLike) -> Scores:
    table = np.asarray(counts, np.int64)
    return Scores(Confusion((0, 1), table, np.zeros(2, np.int64)), Reliability.empty())


def test_labels_that_equal_the_prediction_are_all_right(tmp_path: Path) -> None:
    seen, _ = random_pairs(tmp_path, 2)
    for number, one in enumerate(seen):
        write(tmp_path / f"place{number}" / "scene_label.tif", one.astype(np.uint8))
    total = evaluate_folder(tmp_path, fake_bundle(), IdentityEngine(4)).total()
    assert total.scores.confusion.overall_accuracy == 1
    assert total.scores.confusion.mean_iou == 1
    assert total.scores.confusion.pixels == 2 * 40 * 30
    assert total.scores.reliability.mean_confidence == pytest.approx(np.e / (np.e + 3))
    assert total.scores.reliability.expected_error == pytest.approx(1 - np.e / (np.e + 3))


@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (16, 4)])
def test_figures_are_those_of_scikit_learn_on_the_engines_own_answers(tmp_path: Path, tile: int, overlap: int) -> None:
    seen, truths = random_pairs(tmp_path, 3)
    options = EvaluateOptions(PredictOptions(tile_px=tile, overlap_px=overlap))
    report = evaluate_folder(tmp_path, fake_bundle(), FakeEngine(4, noisy), options)
    known = [truth != 255 for truth in truths]
    true = np.concatenate([truth[mask] for truth, mask in zip(truths, known, strict=True)])
    logits = np.concatenate(
        [noisy(one[None, None].astype(np.float32))[0][:, mask] for one, mask in zip(seen, known, strict=True)], axis=1
    ).astype(np.float64)
    probability = (np.exp(logits) / np.exp(logits).sum(axis=0)).T
    called = probability.argmax(axis=1)
    found = report.to_json()["total"]
    assert found["confusion"] == confusion_matrix(true, called, labels=range(4)).tolist()
    assert found["overall_accuracy"] == round(accuracy_score(true, called), 4)
    assert found["mean_f1"] == pytest.approx(f1_score(true, called, average="macro"), abs=1e-4)
    assert found["mean_iou"] == pytest.approx(jaccard_score(true, called, average="macro"), abs=1e-4)
    assert found["calibration"]["nll"] == pytest.approx(log_loss(true, probability, labels=range(4)), abs=1e-4)
    expected = reliability(probability.max(axis=1), called == true, probability[np.arange(len(true)), true])
    assert found["calibration"]["ece"] == pytest.approx(expected.expected_error, abs=1e-4)


def test_the_answers_are_those_of_the_map_where_tiles_overlap(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    seen, truth = rng.integers(0, 4, (150, 90)), rng.integers(0, 4, (150, 90))
    noise = rng.normal(size=(4, 64, 64)).astype(np.float32)
    engine = FakeEngine(4, lambda pixels: pixels[:, :1] * 0.2 + noise)
    add_pair(tmp_path, "scene", seen, truth)
    predict_scene(tmp_path / "scene.tif", tmp_path / "scene_cloudmask.tif", fake_bundle(), engine)
    with rasterio.open(tmp_path / "scene_cloudmask.tif") as file:
        called = file.read(1)
    found = evaluate_folder(tmp_path, fake_bundle(), engine).total().scores.confusion
    assert found.counts.tolist() == confusion_matrix(truth.ravel(), called.ravel(), labels=range(4)).tolist()


def test_labelled_pixels_without_an_answer_are_counted_apart(tmp_path: Path) -> None:
    seen = np.arange(200).reshape(10, 20) % 4
    valid = np.arange(20) < 15
    add_pair(tmp_path, "scene", seen, seen, valid)
    found = evaluate_folder(tmp_path, fake_bundle(), IdentityEngine(4)).total()
    assert found.scores.unanswered == 50
    assert found.scores.confusion.pixels == 150
    assert found.scores.confusion.overall_accuracy == 1


def test_images_are_grouped_by_place_and_pairs_of_a_place_are_summed(tmp_path: Path) -> None:
    ones = np.ones((8, 8), int)
    add_pair(tmp_path, "rome/a", ones, ones)
    add_pair(tmp_path, "rome/b", ones, ones * 2)
    add_pair(tmp_path, "oslo/a", ones, ones)
    report = evaluate_folder(tmp_path, fake_bundle(), IdentityEngine(4))
    groups = report.by("place")
    assert [(name, group.images, group.scores.confusion.overall_accuracy) for name, group in groups.items()] == [
        ("oslo", 1, 1.0),
        ("rome", 2, 0.5),
    ]
    assert report.total().places == 2
    assert list(report.by("sensor")) == [UNKNOWN_SENSOR]


def test_sensors_and_band_sets_are_told_apart(tmp_path: Path) -> None:
    ones = np.ones((8, 8), int)
    for place, names in {"s2": ("B04", "B8A"), "l8": ("SR_B4", "SR_B5", "ST_B10"), "plain": ("red", "nir")}.items():
        add_pair(tmp_path, f"{place}/x", ones, ones)
        path = tmp_path / place / "x.tif"
        profile = {"crs": "EPSG:32631", "transform": UTM, "dtype": "uint16", "height": 8, "width": 8}
        with rasterio.open(path, "w", driver="GTiff", count=len(names), **profile) as file:
            file.write(np.full((len(names), 8, 8), int(STEP * 10_000), np.uint16))
            file.descriptions = names
            file.scales = (1e-4,) * len(names)
    report = evaluate_folder(tmp_path, fake_bundle(), IdentityEngine(4))
    sensors = {one.pair.place: one.sensor for one in report.scored}
    assert sensors["plain"] == UNKNOWN_SENSOR
    assert "Sentinel-2" in sensors["s2"]
    assert sensors["l8"] == "Landsat 8/9 OLI"
    dropped = EvaluateOptions(PredictOptions(scene=SceneOptions(drop=("nir",))))
    assert set(evaluate_folder(tmp_path, fake_bundle(), IdentityEngine(4), dropped).by("bands")) == {"red"}
    assert "red nir" in report.by("bands")


def test_a_dropped_band_reaches_the_engine_as_absent(tmp_path: Path) -> None:
    ones = np.ones((8, 8), int)
    add_pair(tmp_path, "x", ones, ones)
    profile = {"crs": "EPSG:32631", "transform": UTM, "dtype": "uint16", "height": 8, "width": 8}
    with rasterio.open(tmp_path / "x.tif", "w", driver="GTiff", count=2, **profile) as file:
        file.write(np.full((2, 8, 8), 5000, np.uint16))
        file.descriptions = ("red", "nir")
        file.scales = (1e-4, 1e-4)
    shown: list[npt.NDArray[np.float32]] = []

    def remember(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        shown.append(pixels)
        return np.zeros((len(pixels), 4, *pixels.shape[2:]), np.float32)

    for drop in ((), ("nir",)):
        options = EvaluateOptions(PredictOptions(scene=SceneOptions(drop=drop)))
        evaluate_folder(tmp_path, fake_bundle(), FakeEngine(4, remember), options)
    whole, bare = shown
    assert (whole[0, 1:, 0, 0] == [1, 1]).all()
    assert (bare[0, 1:, 0, 0] == [0, 0]).all()


def test_bands_that_a_model_needs_cannot_be_left_out(tmp_path: Path) -> None:
    ones = np.ones((8, 8), int)
    add_pair(tmp_path, "x", ones, ones)
    spec = fake_bundle().input_spec
    assert bands_left_out(spec, ["red"]) == ("nir",)
    for only, message in ((["nir"], "needs red"), (["red", "green"], "no band green")):
        with pytest.raises(BandError, match=message):
            bands_left_out(spec, only)
    for drop, message in ((("red",), "needs band red"), (("green",), "has no band green")):
        options = EvaluateOptions(PredictOptions(scene=SceneOptions(drop=drop)))
        with pytest.raises(BandError, match=message):
            evaluate_folder(tmp_path, fake_bundle(), IdentityEngine(4), options)


def test_what_cannot_be_used_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    ones = np.ones((8, 8), int)
    add_pair(tmp_path, "a", ones, ones)
    engine = IdentityEngine(4)

    def refused(error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            evaluate_folder(tmp_path, fake_bundle(), engine)

    add_pair(tmp_path, "b", ones, ones * 7)
    refused(InputError, r"7 \(64 px\) are no classes")
    write(tmp_path / "b_label.tif", np.ones((8, 9), np.uint8))
    refused(GridError, "does not lie on the pixels")
    for name in "ab":
        write(tmp_path / f"{name}_label.tif", np.full((8, 8), 255, np.uint8))
    refused(InputError, "no pixel of the 2 labels")
    (tmp_path / "b_label.tif").unlink()
    refused(InputError, "1 image without label")
    with pytest.raises(InputMissingError):
        evaluate_folder(tmp_path / "absent", fake_bundle(), engine)
    assert engine.batches == []


def test_four_places_give_no_interval_and_five_do(tmp_path: Path) -> None:
    places = [scores([[9 - k, k], [k, 9]]) for k in range(5)]
    assert place_intervals(places[:4]) == {}
    low, high = place_intervals(places)["overall_accuracy"]
    assert low <= sum((places), start=scores(np.zeros((2, 2)))).confusion.overall_accuracy <= high


def test_intervals_repeat_and_agree_with_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    tables = [rng.integers(1, 100, (2, 2)) for _ in range(12)]
    places = [scores(table) for table in tables]
    found = place_intervals(places)
    assert found == place_intervals(places)
    rng = np.random.default_rng(2)
    drawn = [sum(tables[k] for k in rng.integers(12, size=12)) for _ in range(4000)]
    for figure, wanted in {
        "overall_accuracy": [np.trace(table) / table.sum() for table in drawn],
        "iou 1": [table[1, 1] / (table[1].sum() + table[0, 1]) for table in drawn],
    }.items():
        np.testing.assert_allclose(found[figure], np.percentile(wanted, (2.5, 97.5)), atol=0.02)


def test_places_that_are_all_alike_leave_no_doubt() -> None:
    low, high = place_intervals([scores([[3, 1], [1, 3]])] * 6)["mean_iou"]
    assert low == high == pytest.approx(3 / 5)


def test_a_class_that_never_occurs_has_no_interval() -> None:
    assert "iou 1" not in place_intervals([scores([[3, 0], [0, 0]])] * 6)


@pytest.fixture
def guesses(tmp_path: Path) -> tuple[Path, Callable[[float], FakeEngine]]:
    """Images whose class is the one that is seen in 70 % of the pixels, and engines that are more or less sure."""
    rng = np.random.default_rng(3)
    for number in range(2):
        seen = rng.integers(0, 4, (120, 100))
        other = (seen + rng.integers(1, 4, seen.shape)) % 4
        add_pair(tmp_path / "fit", f"p{number}", seen, np.where(rng.random(seen.shape) < 0.7, seen, other))

    def engine(logit: float) -> FakeEngine:
        identity = IdentityEngine(4)
        return FakeEngine(4, lambda pixels: identity.run(pixels) * np.float32(logit))

    return tmp_path / "fit", engine


@pytest.mark.parametrize("logit", [1.0, 12.0])
def test_the_temperature_makes_the_confidence_the_share_of_right_pixels(
    guesses: tuple[Path, Callable[[float], FakeEngine]], logit: float
) -> None:
    folder, engine = guesses
    found = fit_bundle(folder, fake_bundle(), engine(logit), EvaluateOptions(PredictOptions(tile_px=32, overlap_px=8)))
    # 70 % against 10 % for each other class is a logit of ln 7.
    assert found.temperature == pytest.approx(logit / np.log(7), rel=0.03)
    assert (found.data, found.places, found.pixels) == ("fit", 2, 24_000)
    assert found.nll[1] < found.nll[0]
    assert found.ece[1] < 0.01 < found.ece[0]


def test_a_large_image_is_sampled_evenly(
    guesses: tuple[Path, Callable[[float], FakeEngine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg_cli.evaluate.run.FIT_PIXELS", 3000)
    folder, engine = guesses
    found = fit_bundle(folder, fake_bundle(), engine(5.0))
    assert 5700 < found.pixels < 6300
    assert found.temperature == pytest.approx(5 / np.log(7), rel=0.1)


def test_a_stored_temperature_is_used_by_the_next_run_and_keeps_the_labels(
    tmp_path: Path, guesses: tuple[Path, Callable[[float], FakeEngine]]
) -> None:
    folder, engine = guesses
    home = tmp_path / "model"
    home.mkdir()
    (home / "item.json").write_text(json.dumps(card_fields(LEGEND)))
    bundle = Bundle.open(home)
    before = evaluate_folder(folder, bundle, engine(5.0))
    after = evaluate_folder(folder, store_calibration(bundle, fit_bundle(folder, bundle, engine(5.0))), engine(5.0))
    assert (before.settings["temperature"], after.settings["temperature"]) == (
        1,
        pytest.approx(5 / np.log(7), rel=0.03),
    )
    assert (before.total().scores.confusion.counts == after.total().scores.confusion.counts).all()
    assert after.total().scores.reliability.expected_error < 0.01 < before.total().scores.reliability.expected_error
    assert {path.name for path in home.iterdir()} == {"item.json"}


def test_only_a_readme_made_of_the_card_follows_it(tmp_path: Path) -> None:
    for name in ("item.json", "README.md"):
        shutil.copy(bundle_folders()[0] / name, tmp_path)
    bundle = Bundle.open(tmp_path)
    found = fit_record()
    store_calibration(bundle, found)
    bundle = Bundle.open(tmp_path)
    assert bundle.card.extras.calibration == found
    text = (tmp_path / "README.md").read_text()
    assert text == describe_in_words(bundle.card)
    assert "softmax of logits / 1.7; fitted on dev (5 places, 900 pixels)" in text
    (tmp_path / "README.md").write_text("mine\n")
    store_calibration(bundle, found)
    assert (tmp_path / "README.md").read_text() == "mine\n"


def fit_record() -> ConfidenceCalibration:
    return ConfidenceCalibration(temperature=1.7, data="dev", places=5, pixels=900, nll=(0.9, 0.7), ece=(0.2, 0.05))


def test_a_shipped_bundle_is_evaluated_from_end_to_end(tmp_path: Path) -> None:
    window = RasterioWindow(100, 200, 96, 64)
    for folder, name, source in (
        ("images", "l1c_13_bands", SAMPLES / "l1c_13_bands.tif"),
        ("labels", "l1c_13_bands", SAMPLES / "reference" / "l1c_13_bands_cloudmask.tif"),
    ):
        (tmp_path / folder).mkdir()
        with rasterio.open(source) as file:
            profile = file.profile | {
                "width": 96,
                "height": 64,
                "transform": file.transform @ Affine.translation(100, 200),
            }
            with rasterio.open(tmp_path / folder / f"{name}.tif", "w", **profile) as cut:
                cut.write(file.read(window=window))
                cut.descriptions, cut.scales, cut.offsets = file.descriptions, file.scales, file.offsets
    bundle = Bundle.open(next(folder for folder in bundle_folders() if "cloud" in folder.name))
    engine, _ = choose_engine(bundle, EngineOptions("onnx", "cpu", threads=1))
    report = evaluate_folder(tmp_path, bundle, engine)
    assert report.total().scores.confusion.pixels + report.total().scores.unanswered == 96 * 64
    assert list(report.by("sensor")) == ["Sentinel-2 MSI"]
    assert 0 < report.total().scores.reliability.mean_nll < 5
    assert report.weights_sha256 == bundle.sha256("onnx")
    json.dumps(report.to_json(), allow_nan=False)


def test_page_and_diagram_are_well_formed_and_hold_the_figures(tmp_path: Path) -> None:
    random_pairs(tmp_path / "a & b", 5, 12, 9)
    report = evaluate_folder(tmp_path / "a & b", fake_bundle(), FakeEngine(4, noisy))
    total = report.total()
    drawn = ElementTree.fromstring(reliability_svg(total.scores.reliability, "a < b"))
    dots = drawn.findall("{http://www.w3.org/2000/svg}circle")
    assert len(dots) == int((total.scores.reliability.counts > 0).sum())
    page = report_html(report)
    assert "fake-bundle on a &amp; b" in page
    low, high = total.intervals["overall_accuracy"]
    assert f"{total.scores.confusion.overall_accuracy:.3f} ({low:.2f}-{high:.2f})" in page
    assert f"<td>{total.scores.confusion.counts[1, 2]:,}</td>" in page


def test_an_empty_diagram_can_be_drawn() -> None:
    ElementTree.fromstring(reliability_svg(Reliability.empty(), "nothing"))


def test_constant_logits_have_the_confidence_of_their_softmax(tmp_path: Path) -> None:
    ones = np.ones((40, 40), int)
    add_pair(tmp_path, "x", ones, ones)
    found = evaluate_folder(tmp_path, fake_bundle(), ConstantEngine([0, 2, 0, 0])).total().scores.reliability
    assert found.mean_confidence == pytest.approx(np.exp(2) / (np.exp(2) + 3))
    assert found.mean_nll == pytest.approx(-np.log(np.exp(2) / (np.exp(2) + 3)), rel=1e-5)
