"""How the shipped bundles are measured: figures against hand-made answers, aims against canned reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from geoseg_cli.bundle import Bundle, ModelCard, find_bundle
from geoseg_cli.catalog import legends
from geoseg_cli.errors import UsageError
from geoseg_cli.export.readme import describe_in_words
from geoseg_cli.training.augment import Sample, Source
from geoseg_cli.training.chips import CLOUD_VALUES, LAND_VALUES, Chip
from geoseg_cli.training.loop import ValidationSet

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
LAND = legends()["esa-worldcover"].subset(LAND_VALUES)
CLOUDS = legends()["cloudsen12"].subset(CLOUD_VALUES)
TRAINING = Path(os.environ.get("GEOSEG_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")) / "training"
needs_data = pytest.mark.skipif(not TRAINING.is_dir(), reason="training files not found: set GEOSEG_REAL_DATA")
NAMES = ("validation_cases", "figures", "left_out", "rivals", "band_sets", "aims", "evaluate_bundles", "train_bundles")


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The scripts' modules by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield SimpleNamespace(**{name: import_module(name) for name in NAMES})


def case(scripts: SimpleNamespace, truth: Any, source: str = "germany", **rest: Any) -> Any:
    """A case whose image is one grey green band."""
    values = np.asarray(truth, np.uint8)
    pixels = np.full((1, *values.shape), 0.1, np.float32)
    return scripts.validation_cases.Case(source, "image", ("green",), pixels, values >= 0, values, **rest)


def measured(scripts: SimpleNamespace, cases: list[Any], answers: list[Any], task: str, **rest: Any) -> dict[str, Any]:
    """Figures of a model that gives these answers."""
    given_to = {one: np.asarray(answer, np.uint8) for one, answer in zip(cases, answers, strict=True)}
    model = scripts.figures.Model("network", given_to.get, **rest)
    rows: dict[str, Any] = scripts.figures.measure(cases, model, LAND if task == "land-cover" else CLOUDS, task)
    return rows


# German cities


def polygon(scripts: SimpleNamespace, name: str, city: str = "Freiburg") -> Any:
    bands, rng = ("blue", "green", "red"), np.random.default_rng(0)
    dn = np.arange(600).reshape(200, 3)
    return scripts.validation_cases.polygon_case(dn, name, city, bands, rng)


def test_open_soil_may_be_called_bare_or_cropland_and_nothing_else(scripts: SimpleNamespace) -> None:
    soil = polygon(scripts, "OpenSoil")
    known = soil.truth != 255
    assert known.sum() == 200
    for value, accuracy in ((60, 1.0), (40, 1.0), (30, 0.0), (50, 0.0)):
        row = measured(scripts, [soil], [np.full(known.shape, value)], "land-cover")["germany"]
        assert row["overall_accuracy"] == accuracy
        assert row["pixels"] == 200


def test_planted_fields_called_bare_are_wrong(scripts: SimpleNamespace) -> None:
    fields = polygon(scripts, "PlantedFields")
    row = measured(scripts, [fields], [np.full(fields.truth.shape, 60)], "land-cover")["germany"]
    assert row["overall_accuracy"] == 0.0


def test_the_ten_german_labels_become_six_classes(scripts: SimpleNamespace) -> None:
    assert set(scripts.validation_cases.GERMAN_CLASSES.values()) == {10, 30, 40, 50, 60, 80}
    built = [name for name, value in scripts.validation_cases.GERMAN_CLASSES.items() if value == 50]
    assert built == ["Industrial", "Settlement", "Urban"]


def test_the_pixels_of_a_polygon_are_all_laid_out_once_where_they_count(scripts: SimpleNamespace) -> None:
    one = polygon(scripts, "Water")
    counted = one.reflectance[0][one.truth == 80] * 1e4
    assert sorted(np.rint(counted).astype(int).tolist()) == list(range(0, 600, 3))


def test_macro_f1_and_cities_are_those_computed_by_hand(scripts: SimpleNamespace) -> None:
    first = case(scripts, [[10, 10, 80, 80]], part="Freiburg")
    second = case(scripts, [[10, 10, 80, 255]], part="Muenster")
    row = measured(scripts, [first, second], [[[10, 80, 80, 80]], [[10, 10, 10, 10]]], "land-cover")["germany"]
    # Trees: 3 hits of 4 true and 4 called; water: 2 hits of 3 true and 3 called.
    assert row["mean_f1"] == pytest.approx((6 / 8 + 4 / 6) / 2, abs=1e-4)
    assert row["by_part"]["Freiburg"]["overall_accuracy"] == 0.75
    assert row["by_part"]["Muenster"]["overall_accuracy"] == pytest.approx(2 / 3, abs=1e-4)


def test_the_levels_agree_where_both_give_the_same_class_whatever_the_truth(scripts: SimpleNamespace) -> None:
    pair = [case(scripts, [[10, 255]], f"terramesh-{level}", place="lagoon") for level in ("l1c", "l2a")]
    row = measured(scripts, pair, [[[30, 80]], [[30, 10]]], "land-cover")["terramesh-levels"]
    assert (row["agreement"], row["pixels"], row["n"]) == (0.5, 2, 1)


# Edges


def test_two_pixels_from_an_edge_are_near_and_three_are_far(scripts: SimpleNamespace) -> None:
    mask = np.zeros((1, 10), bool)
    mask[0, 5:] = True
    far = scripts.figures.far_from_edges(mask, 2.0)
    assert far[0].tolist() == [True] * 3 + [False] * 4 + [True] * 3


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_far_from_edges_is_what_a_search_over_all_pairs_of_pixels_finds(
    scripts: SimpleNamespace, mask: npt.NDArray[np.bool_]
) -> None:
    far = scripts.figures.far_from_edges(mask, 2.0)
    places = list(np.ndindex(mask.shape))
    for row, col in places:
        near = [(r, c) for r, c in places if (r - row) ** 2 + (c - col) ** 2 <= 4]
        assert far[row, col] == all(mask[place] == mask[row, col] for place in near)


def test_errors_along_a_drawn_edge_do_not_count_inside(scripts: SimpleNamespace) -> None:
    truth = np.zeros((12, 12), np.uint8)
    truth[:, 6:] = 1
    answer = np.zeros_like(truth)
    answer[:, 8:] = 1
    row = measured(scripts, [case(scripts, truth, "ukis-landsat5")], [answer], "cloud")["ukis-landsat5"]
    assert row["cloud"]["f1"] == pytest.approx(2 * 48 / (72 + 48), abs=1e-4)
    assert row["cloud_inside"]["f1"] == 1.0


# Clouds


def test_masks_without_a_thin_class_take_either_thickness_for_cloud(scripts: SimpleNamespace) -> None:
    row = measured(scripts, [case(scripts, [[1, 1, 3, 0]], "alberta")], [[[1, 2, 3, 0]]], "cloud")["alberta"]
    assert row["classes"]["cloud"]["f1"] == row["classes"]["cloud_shadow"]["f1"] == row["cloud"]["f1"] == 1.0
    assert "thin_cloud" not in row["classes"]


def test_a_test_of_cloud_alone_is_asked_for_neither_shadow_nor_thickness(scripts: SimpleNamespace) -> None:
    one = case(scripts, [[1, 2, 3, 0]], "cs12-scribbles")
    row = measured(scripts, [one], [[[1, 1, 0, 0]]], "cloud", is_binary=True)["cs12-scribbles"]
    assert row["cloud"]["f1"] == 1.0
    assert "classes" not in row


def test_of_clear_images_the_worst_one_is_told(scripts: SimpleNamespace) -> None:
    clear = [case(scripts, [[0, 0]], "eurosat-clear") for _ in range(2)]
    row = measured(scripts, clear, [[[0, 0]], [[2, 3]]], "cloud")["eurosat-clear"]
    assert row["called_cloud_by_image"] == [0.0, 0.5]
    assert (row["called_cloud"], row["called_shadow"]) == (0.25, 0.25)


def test_sources_that_a_model_cannot_judge_are_left_out_of_its_figures(scripts: SimpleNamespace) -> None:
    model = scripts.figures.Model("s2cloudless", {}.get, is_binary=True)
    assert scripts.figures.measure([case(scripts, [[0]], "cs12-clear")], model, CLOUDS, "cloud") == {}


@pytest.mark.parametrize(
    ("green", "red", "is_cloud"),
    [
        (0.20, 0.10, True),  # bright enough, and greener than red
        (0.20, 0.20, False),  # an index of 0 is not above 0
        (0.20, 0.30, False),  # dry ground
        (0.17, 0.05, False),  # too dark
        (0.175, 0.05, False),  # the limit itself
        (0.40, 0.60, True),  # so bright that the colour does not matter
        (0.39, 0.60, False),
        (0.00, 0.00, False),
    ],
)
def test_the_threshold_test_on_pixels_computed_by_hand(
    scripts: SimpleNamespace, green: float, red: float, is_cloud: bool
) -> None:
    pixels = np.array([[green]], np.float32), np.array([[red]], np.float32)
    assert scripts.rivals.is_cloud_by_threshold(*pixels).item() is is_cloud


def test_the_threshold_test_finds_green_and_red_in_any_order_of_bands(scripts: SimpleNamespace) -> None:
    pixels = np.array([0.1, 0.9, 0.2], np.float32).reshape(3, 1, 1)
    one = scripts.validation_cases.Case(
        "oncloudn", "chip", ("red", "blue", "green"), pixels, np.ones((1, 1), bool), np.zeros((1, 1), np.uint8)
    )
    assert scripts.rivals.threshold_test().predict(one).item() == 1


def test_s2cloudless_that_does_not_start_is_an_error_that_says_where(scripts: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="s2cloudless does not run with"):
        scripts.rivals.s2cloudless([], Path(sys.executable))


# Scenes left out


def test_a_scene_left_out_is_gone_and_its_neighbour_stays(scripts: SimpleNamespace) -> None:
    def chip(source: str, value: int) -> Chip:
        return Chip(source, ("green",), np.full((1, 2, 2), value, np.int16), np.ones((2, 2), np.uint8))

    given_sources = [Source([chip("eurosat", 1)]), Source([chip("ukis", 5), chip("ukis", 7)])]
    kept = scripts.left_out.without(given_sources, ["ukis-landsat5"])
    assert [one.dn[0, 0, 0] for source in kept for one in source.chips] == [1, 7]
    alone = [given_sources[0], Source([chip("alberta", 3)])]
    assert [source.chips[0].source for source in scripts.left_out.without(alone, ["alberta"])] == ["eurosat"]
    # One after the other they would leave the second: it had become the first of its source.
    none = scripts.left_out.without(given_sources, ["ukis-landsat5", "ukis-landsat7"])
    assert [source.chips[0].source for source in none] == ["eurosat"]


def test_the_card_names_no_source_of_which_nothing_was_left(scripts: SimpleNamespace) -> None:
    recipe = scripts.train_bundles.recipe_named("cloud-lale")
    gone = scripts.left_out.gone_without
    assert gone(["ukis-landsat5"]) == set()
    assert gone(["ukis-landsat5", "ukis-landsat7"]) == {"ukis"}
    rows = scripts.train_bundles.data_table(recipe, gone(["ukis-landsat5", "ukis-landsat7", "alberta"]))
    assert [share for _, share, _ in rows] == ["83%", "17%"]


def test_the_card_tells_whether_a_scene_was_trained_on(scripts: SimpleNamespace) -> None:
    record = Bundle.open(ROOT / "models" / "cloud-mscloudcam").card.extras.training
    assert scripts.left_out.was_trained_on(record, "ukis-landsat5")
    assert not scripts.left_out.was_trained_on(record | {"left_out": ["ukis-landsat5"]}, "ukis-landsat5")
    assert scripts.left_out.was_trained_on(record | {"left_out": ["ukis-landsat5"]}, "ukis-landsat7")
    assert not scripts.left_out.was_trained_on({}, "alberta")


def test_weights_that_saw_a_scene_cannot_begin_a_training_without_it(scripts: SimpleNamespace) -> None:
    folder = ROOT / "models" / "cloud-mscloudcam"
    scripts.train_bundles.check_unseen(folder, [])
    with pytest.raises(UsageError, match="has learned from ukis-landsat5"):
        scripts.train_bundles.check_unseen(folder, ["ukis-landsat5"])


def one_weight(value: float) -> torch.nn.Module:
    """Calls class 1 wherever its band is at least ``-value``."""
    network = torch.nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
        network.bias.copy_(torch.tensor([0.0, value]))
    return network


def test_weights_between_two_networks_lie_on_the_line_between_them(scripts: SimpleNamespace) -> None:
    start, end = one_weight(1.0), one_weight(5.0)
    assert scripts.train_bundles.mixed(start, end, 0.25).bias.tolist() == [0.0, 4.0]
    assert (start.bias.tolist(), end.bias.tolist()) == ([0.0, 1.0], [0.0, 5.0])


def test_the_best_weights_between_start_and_end_are_kept_and_told(scripts: SimpleNamespace) -> None:
    pixels = np.linspace(-6, 6, 25, dtype=np.float32).reshape(1, 5, 5)
    target = np.where(pixels[0] >= -2.75, 2, 1).astype(np.uint8)
    validation = [ValidationSet("line", [Sample(pixels, target, 1.0)])]
    trained = {"best": one_weight(20.0), "last": one_weight(4.5)}
    network, told = scripts.train_bundles.best_between(one_weight(1.0), trained, validation)
    assert network.bias.tolist() == [0.0, 2.75]
    assert (told["trained"], told["share_of_start"], told["score"]) == ("last", 0.5, 1.0)
    assert set(told["scores"]["best"]) == {"0.00", "0.10", "0.25", "0.50", "0.75"}


@pytest.mark.parametrize(
    ("least", "within", "taken"),
    [(2.0, None, 2.75), (2.0, 0.2, 2.75), (3.0, 0.2, 3.625), (3.0, 0.1, 2.75), (9.0, 1.0, 2.75)],
)
def test_of_weights_that_score_alike_those_are_taken_that_are_accepted(
    scripts: SimpleNamespace, least: float, within: float | None, taken: float
) -> None:
    pixels = np.linspace(-6, 6, 25, dtype=np.float32).reshape(1, 5, 5)
    target = np.where(pixels[0] >= -2.75, 2, 1).astype(np.uint8)
    validation = [ValidationSet("line", [Sample(pixels, target, 1.0)])]
    network, told = scripts.train_bundles.best_between(
        one_weight(1.0), {"best": one_weight(4.5)}, validation, lambda one: one.bias[1].item() > least, within
    )
    assert network.bias[1].item() == taken
    assert ("reason" in told) == (taken != 2.75)


def test_figures_of_a_scene_that_was_trained_on_are_not_taken_over(scripts: SimpleNamespace) -> None:
    other = {"bundle": "cloud-mscloudcam", "left_out": "alberta", "was_trained_on": True, "network": {}}
    with pytest.raises(UsageError, match="trained on alberta"):
        scripts.evaluate_bundles.add_left_out({"bundle": "cloud-mscloudcam", "network": {}}, other)


def test_a_report_of_a_bundle_without_a_scene_settles_the_aims_on_sharp_masks(scripts: SimpleNamespace) -> None:
    shadow = {"cloud_shadow": {"f1": 0.75, "pixels": 9}}
    row = {"cloud": {"f1": 0.91}, "cloud_inside": {"f1": 0.96}, "classes": shadow}
    left_out = {"left_out": "ukis-landsat5", "was_trained_on": False, "weights_sha256": "of others", "steps": 1200}
    other = cloud_report(ukis_landsat5=row) | left_out
    other["forest"] = {"ukis-landsat5": {"cloud": {"f1": 0.7}}}
    report = cloud_report() | {"forest": {}, "weights_sha256": "of this one"}
    scripts.evaluate_bundles.add_left_out(report, other)
    rows = by_aim(scripts.aims.aims_of(report, "cloud"))
    assert "others of the same recipe that were trained without this scene" in report["notes"]["ukis-landsat5"]
    assert "1,200 steps" in report["notes"]["ukis-landsat5"]
    assert rows["cloud F1, sharp masks of scenes left out"]["met"] is True
    assert rows["the same, more than 2 px from a drawn edge"]["met"] is False
    assert rows["shadow F1, six bands"]["met"] is True
    assert rows["cloud F1, over the best rival's"]["measured"] == 0.21


def test_a_report_of_another_bundle_is_refused(scripts: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="not a report of cloud-mscloudcam with a scene left out"):
        scripts.evaluate_bundles.add_left_out(cloud_report(), cloud_report())


@needs_data
def test_precisions_are_compared_on_simulated_scenes_with_the_classes_of_torch(scripts: SimpleNamespace) -> None:
    tiles = import_module("precision_agreement").held_out_tiles(find_bundle("cloud-lale"), TRAINING, 1)
    assert tiles.pixels.shape[0] == 1
    assert tiles.wanted.shape == (1, *tiles.pixels.shape[2:])
    assert set(np.unique(tiles.wanted)) <= set(range(4))


# Band sets


def test_fewer_bands_are_measured_only_where_the_model_would_have_used_more(scripts: SimpleNamespace) -> None:
    pixels = np.arange(4, dtype=np.float32).reshape(4, 1, 1)
    one = scripts.validation_cases.Case(
        "germany",
        "polygon",
        ("swir16", "blue", "green", "red"),
        pixels,
        np.ones((1, 1), bool),
        np.zeros((1, 1), np.uint8),
    )
    rgb = ("blue", "green", "red")
    (cut,) = scripts.band_sets.with_fewer_bands([one], rgb, (*rgb, "swir16"))
    assert cut.bands == rgb
    assert cut.reflectance.ravel().tolist() == [1, 2, 3]
    assert scripts.band_sets.with_fewer_bands([one], rgb, rgb) == []
    assert scripts.band_sets.with_fewer_bands([one], (*rgb, "nir"), (*rgb, "nir", "swir16")) == []


# Aims

WORST_CLASS = "F1 of the worst class, German cities and EuroSAT"


def cloud_report(**sources: dict[str, Any]) -> dict[str, Any]:
    rows = {name.replace("_", "-"): {"n": 1, "unit": "chip", "pixels": 4} | row for name, row in sources.items()}
    return {"bundle": "cloud-mscloudcam", "network": rows, "notes": dict.fromkeys(rows, "A note.")}


def by_aim(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["aim"]: row for row in rows}


def test_the_worst_source_decides_and_is_named(scripts: SimpleNamespace) -> None:
    report = cloud_report(oncloudn={"cloud": {"f1": 0.9}}, cs12_scribbles={"cloud": {"f1": 0.84}})
    row = by_aim(scripts.aims.aims_of(report, "cloud"))["cloud F1, RGB and RGB-NIR"]
    assert row == {
        "aim": "cloud F1, RGB and RGB-NIR", "wanted": ">= 0.85", "measured": 0.84, "where": "cs12-scribbles",
        "met": False,
    }  # fmt: skip


def test_what_nothing_measured_is_open(scripts: SimpleNamespace) -> None:
    rows = scripts.aims.aims_of(cloud_report(), "cloud") + scripts.aims.aims_of(cloud_report(), "land-cover")
    assert {row["met"] for row in rows} == {row["measured"] for row in rows} == {None}


def test_a_bundle_is_compared_with_its_best_rival_on_each_source(scripts: SimpleNamespace) -> None:
    report = cloud_report(oncloudn={"cloud": {"f1": 0.9}}, cs12_scribbles={"cloud": {"f1": 0.8}})
    report["forest"] = {"oncloudn": {"cloud": {"f1": 0.5}}, "cs12-scribbles": {"cloud": {"f1": 0.7}}}
    report["threshold"] = {"oncloudn": {"cloud": {"f1": 0.6}}, "cs12-scribbles": {"cloud": {"f1": 0.85}}}
    row = by_aim(scripts.aims.aims_of(report, "cloud"))["cloud F1, over the best rival's"]
    assert (row["measured"], row["where"], row["met"]) == (-0.05, "cs12-scribbles", False)


@pytest.mark.parametrize(("called", "met"), [(0.005, True), (0.0051, False)])
def test_false_alarms_may_reach_their_limit_and_not_pass_it(scripts: SimpleNamespace, called: float, met: bool) -> None:
    clear = {"called_cloud": called, "called_cloud_by_image": [0.0, 2 * called], "called_shadow": 0.03}
    rows = by_aim(scripts.aims.aims_of(cloud_report(eurosat_clear=clear), "cloud"))
    assert rows["clear ground called cloud"]["met"] is met
    assert rows["worst EuroSAT tile called cloud"]["measured"] == 2 * called
    assert rows["clear ground called shadow"]["met"] is False


def test_a_class_that_is_never_found_collapses_and_one_without_samples_does_not_count(scripts: SimpleNamespace) -> None:
    classes = {"water": {"f1": 0.9, "pixels": 5}, "bare": {"f1": None, "pixels": 3}, "snow": {"f1": None, "pixels": 0}}
    row = {"overall_accuracy": 0.8, "mean_f1": 0.5, "classes": classes}
    rows = by_aim(scripts.aims.aims_of(cloud_report(germany=row), "land-cover"))
    assert rows["German cities, six classes: overall accuracy"]["met"] is True
    assert (rows[WORST_CLASS]["measured"], rows[WORST_CLASS]["met"]) == (0.0, False)
    del classes["bare"]
    rows = by_aim(scripts.aims.aims_of(cloud_report(germany=row), "land-cover"))
    assert rows[WORST_CLASS]["met"] is True


def test_band_dropout_is_judged_on_sentinel_2_scenes_alone(scripts: SimpleNamespace) -> None:
    ours = {"steps": 9, "network": {"simulated": {"mean_iou": 0.9, "by_part": {"sentinel-2": {"mean_iou": 0.70}}}}}
    other = {"steps": 9, "network": {"simulated": {"mean_iou": 0.1, "by_part": {"sentinel-2": {"mean_iou": 0.73}}}}}
    assert [*scripts.evaluate_bundles.lost_to(ours, other).values()] == [0.03]


def test_band_dropout_is_not_judged_by_a_run_of_another_length(scripts: SimpleNamespace) -> None:
    row = {"network": {"simulated": {"mean_iou": 0.9}}}
    with pytest.raises(UsageError, match="8 steps on full bands"):
        scripts.evaluate_bundles.lost_to(row | {"steps": 9}, row | {"steps": 8})


# The card in words


def test_the_readme_tells_aims_rivals_band_sets_and_parts(scripts: SimpleNamespace) -> None:
    classes = {"clear": {"pixels": 9, "iou": 0.8, "f1": 0.9}}
    row = {
        "overall_accuracy": 0.9, "mean_iou": 0.8, "mean_f1": 0.85, "classes": classes, "cloud": {"f1": 0.75},
        "by_part": {"landsat-8": {"n": 3, "cloud_f1": 0.625, "mean_iou": 0.5, "mean_iou_95": [0.4, 0.6]}},
    }  # fmt: skip
    report = cloud_report(oncloudn=row)
    report["threshold"] = {"oncloudn": {"n": 1, "unit": "chip", "pixels": 4, "cloud": {"f1": 0.5}}}
    report["band_sets"] = {"oncloudn": {"RGB": {"network": {"n": 1, "cloud_f1": 0.7}}}}
    report["aims"] = scripts.aims.aims_of(report, "cloud")
    text = described(report)
    assert "| cloud F1, RGB and RGB-NIR | >= 0.85 | 0.75 | oncloudn | no |" in text
    assert "| shadow F1, six bands | >= 0.75 | not measured | - | open |" in text
    assert "| threshold test | 1 (chips) | 4 | - | - | - | 0.500 |" in text
    assert "| RGB | 1 | 0.700 |" in text
    assert "| landsat-8 | 3 | 0.500 (0.40-0.60) | 0.625 |" in text
    assert "Braaten" in text
    assert "random forest" not in text


def described(report: dict[str, Any]) -> str:
    """README of the shipped cloud bundle with another report in its card."""
    item = json.loads((ROOT / "models" / "cloud-mscloudcam" / "item.json").read_text())
    item["properties"]["mlm:hyperparameters"]["geoseg"]["metrics"] = report
    return describe_in_words(ModelCard.model_validate(item))


@pytest.mark.slow
def test_a_shipped_bundle_is_measured_quickly_from_the_command_line(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, str(SCRIPTS / "evaluate_bundles.py"), str(ROOT / "models" / "landcover-lale"), "--quick",
         "--data", str(real_data), "--runs", str(tmp_path), "--out", str(out)],
        check=True,
    )  # fmt: skip
    report = json.loads(out.read_text())
    assert set(report["network"]) == set(report["forest"]) == set(report["notes"])
    assert {row["met"] for row in report["aims"]} <= {True, False, None}
    assert report["network"]["terramesh-levels"]["n"] == 2


@pytest.mark.peer
def test_s2cloudless_calls_a_white_cold_scene_cloud_and_a_green_one_clear(scripts: SimpleNamespace) -> None:
    python = os.environ.get("GEOSEG_S2CLOUDLESS_PYTHON")
    if python is None:
        pytest.skip("set GEOSEG_S2CLOUDLESS_PYTHON to the interpreter of its environment")
    leaves = np.array([0.11, 0.08, 0.04, 0.07, 0.35, 0.36, 0.12, 0.001, 0.16, 0.07], np.float32)
    cloud = np.array([0.60, 0.60, 0.58, 0.60, 0.62, 0.62, 0.40, 0.050, 0.45, 0.35], np.float32)
    cases = [
        scripts.validation_cases.Case(
            "eurosat-clear", "tile", scripts.rivals.PEER_BANDS, np.tile(spectrum[:, None, None], (1, 16, 16)),
            np.ones((16, 16), bool), np.zeros((16, 16), np.uint8),
        )
        for spectrum in (leaves, cloud)
    ]  # fmt: skip
    predict = scripts.rivals.s2cloudless(cases, Path(python)).predict
    assert [int(predict(one).max()) for one in cases] == [0, 1]
    assert predict(cases[1]).all()
