"""The experiments: arms that differ in what they say, honest intervals, runs that resume, a page from given figures."""

from __future__ import annotations

import importlib
import json
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
LAND_PX, SCENES = 96, 4


@pytest.fixture(scope="module")
def modules() -> Any:
    """The modules of the script by short name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        names = {"arms": "experiment_arms", "data": "experiment_data", "page": "experiment_page", "run": "experiments"}
        yield SimpleNamespace(**{short: importlib.import_module(name) for short, name in names.items()})


# experiment -> what its arms change against the reference: settings of the network, or fields of the arm
CHANGES: dict[str, list[set[str]]] = {
    "sdm": [{"sdm"}, {"sdm", "sdm_stage"}, {"sdm", "sdm_stage"}, {"sdm", "sdm_stage"}, {"sdm", "use_band_embedding"},
            {"sdm"}],
    "scale": [{"data_share"}, {"data_share"}, {"embed"}, {"embed", "data_share"}, {"embed", "data_share"}],
    "bands": [{"bands"}] * 11,
    "cam": [{"cam"}, {"cam", "context"}, {"cam", "context"}, {"context"}, {"cam_keys"},
            {"use_channel_gate", "use_spatial_gate"}],
    "lale": [{"kernel", "norm", "activation"}, {"kernel"}, {"norm"}, {"activation"}],
}  # fmt: skip


# fields of an arm that do not decide by themselves what is trained
OWN = {"label", "config", "network"}


def settings(modules: Any, arm: Any) -> dict[str, Any]:
    """All settings of an arm's network, defaults included, and the arm's other fields."""
    with torch.device("meta"):
        config = modules.run.build(arm, 4).config
    network = {one.name: getattr(config, one.name) for one in fields(config)}
    return network | {one.name: getattr(arm, one.name) for one in fields(arm) if one.name not in OWN}


@pytest.mark.parametrize("name", CHANGES)
def test_arms_differ_from_their_reference_in_what_is_stated_alone(name: str, modules: Any) -> None:
    reference, *others = (arm for arm in modules.arms.EXPERIMENTS[name].arms if arm.network != modules.arms.SWIN)
    expected = settings(modules, reference)
    changed = []
    for arm in others:
        found = settings(modules, arm)
        changed.append({key for key in expected if found[key] != expected[key]})
    assert changed == CHANGES[name]


def test_every_band_is_left_out_once(modules: Any) -> None:
    whole, *others = modules.arms.EXPERIMENTS["bands"].arms
    assert len(whole.bands) == 11
    assert [set(whole.bands) - set(arm.bands) for arm in others] == [{band} for band in whole.bands]


def test_the_rivals_at_equal_time_share_all_but_the_backbone(modules: Any) -> None:
    arms = modules.arms.EXPERIMENTS["lemevit"].arms
    assert [arm.seconds for arm in arms] == [12, 12, 30, 30]
    one, other = (modules.run.build(arm, 4) for arm in arms[:2])
    assert type(one.decoder) is type(other.decoder)
    assert one.decoder.classify.weight.shape == other.decoder.classify.weight.shape
    x = torch.rand(2, 11, 40, 72)
    for network in (one, other):
        assert [tuple(logits.shape) for logits in network.train()(x)] == [(2, 4, 40, 72)] * 2
        assert network.eval()(x).shape == (2, 4, 40, 72)


def test_claims_weigh_arms_that_exist_against_each_other(modules: Any) -> None:
    for experiment in modules.arms.EXPERIMENTS.values():
        labels = [arm.label for arm in experiment.arms]
        assert len(set(labels)) == len(labels)
        for claim in experiment.claims:
            assert set(claim.contrast) <= set(labels)
            assert sum(claim.contrast.values()) == pytest.approx(0)


def test_two_arms_have_the_interval_of_a_paired_t_test(modules: Any) -> None:
    one, other = np.array([61.0, 64.0, 62.5]), np.array([60.0, 61.0, 61.5])
    outcome = modules.page.judge(np.stack([other, one]), [-1, 1])
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert outcome.points - outcome.half_width == pytest.approx(interval.low)
    assert outcome.points + outcome.half_width == pytest.approx(interval.high)


scores = st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=2, max_size=5)


@given(scores, st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.floats(-30, 30))
def test_what_a_seed_does_to_all_arms_does_not_count_and_what_an_arm_gains_counts_fully(
    modules: Any, rows: list[list[float]], by_seed: list[float], gain: float
) -> None:
    before = np.array(rows)
    weights = [-1.0, 1.0] + [0.0] * (len(rows) - 2)
    after = before + np.array(by_seed)
    after[1] += gain
    one, other = modules.page.judge(before, weights), modules.page.judge(after, weights)
    assert other.points == pytest.approx(one.points + gain, abs=1e-6)
    assert other.half_width == pytest.approx(one.half_width, abs=1e-6)


@pytest.mark.parametrize(
    ("points", "half_width", "verdict"),
    [
        (1.0, 0.9, "holds"),
        (1.0, 1.0, "within the spread"),
        (-1.0, 0.9, "does not hold"),
        (-1.0, 1.1, "within the spread"),
    ],
)
def test_a_verdict_needs_a_difference_beyond_its_interval(
    points: float, half_width: float, verdict: str, modules: Any
) -> None:
    assert modules.page.Outcome(points, half_width).verdict == verdict


def canned_run(score: float, class_iou: list[float]) -> dict[str, Any]:
    return {
        "steps": 100, "cpu_s": 20.0, "parameters": 1_234_567,
        "scores": {"mean_iou": score / 100, "mean_f1": 0.5, "overall_accuracy": 0.75},
        "class_iou": {str(place): value for place, value in enumerate(class_iou)},
    }  # fmt: skip


@pytest.fixture
def table(modules: Any) -> Any:
    """Given figures at two budgets: LeMeViT 4 points above Swin at the first, the same at the second."""
    scores = [[40.0, 42.0, 44.0], [44.1, 45.9, 48.0], [50.0, 52.1, 53.9], [50.1, 51.9, 54.0]]
    rare = [0.05, 0.16, 0.05, 0.05]
    runs = tuple(
        tuple(canned_run(score, [0.9] * 6 + [low]) for score in row) for row, low in zip(scores, rare, strict=True)
    )
    return modules.page.Table(modules.arms.EXPERIMENTS["lemevit"], runs)


def test_the_page_holds_means_spreads_differences_and_verdicts(table: Any, modules: Any) -> None:
    page = modules.page.render_page([table], {"Machine": "one thread"})
    assert "| Swin-T, 12 s | 1,234,567 | 100 | 20 | 42.0 ± 2.0 | 50.0 ± 0.0 | 75.0 ± 0.0 | reference |" in page
    assert "| LeMeViT-Small, 12 s | 1,234,567 | 100 | 20 | 46.0 ± 2.0 |" in page
    assert "above it LeMeViT-Small, 12 s; Swin-T, 30 s; LeMeViT-Small, 30 s." in page
    assert "Not learned (IoU below 15 %): permanent water in 3 of 4 arms." in page
    assert page.count("| **holds** |") == 1
    assert page.count("| **within the spread** |") == 1
    assert "**Holds** (1 of 2):\n\n- At equal time (12 s) LeMeViT is better. +4.0 ±" in page
    assert "**Does not hold** (0 of 2):\n\n- none" in page
    assert "- **Machine**: one thread" in page
    assert "over 3 seeds" in page


def test_incomplete_experiments_are_left_out_and_named(
    modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lemevit, lale = (modules.arms.EXPERIMENTS[name] for name in ("lemevit", "lale"))
    lines = [
        {"arm": arm.key(), "seed": seed, "data": "d", **canned_run(40 + seed, [0.5] * 7)}
        for arm in (*lemevit.arms, *lale.arms[:-1])
        for seed in (1, 2)
    ]
    book = tmp_path / "results.jsonl"
    book.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut')
    monkeypatch.setattr(modules.run, "PAGE", tmp_path / "experiments.md")
    shelf = {"land-cover": SimpleNamespace(digest="d")}
    modules.run.write_page(shelf, book, SimpleNamespace(only=["lemevit", "lale"], seeds=2, steps=None))
    page = (tmp_path / "experiments.md").read_text()
    assert f"## {lemevit.title}\n" in page
    assert f"## {lale.title}\n" not in page
    assert f"- **Left out**: {lale.title} (2 runs missing)" in page


@pytest.fixture
def land(modules: Any, tmp_path: Path) -> Any:
    """A tiny data set whose files are there already: two classes that the first band tells apart."""
    rng = np.random.default_rng(3)
    for part in ("train", "test"):
        is_bright = rng.random((SCENES, LAND_PX // 32, LAND_PX // 32)).repeat(32, 1).repeat(32, 2) < 0.5
        dn = rng.integers(500, 1500, (SCENES, 11, LAND_PX, LAND_PX)).astype(np.int16)
        dn[:, 0] += np.where(is_bright, 4000, 0).astype(np.int16)
        np.save(tmp_path / f"land-cover-{part}-dn.npy", dn)
        np.save(tmp_path / f"land-cover-{part}-target.npy", np.where(is_bright, 1, 2).astype(np.uint8))
    return modules.data.load_data(tmp_path, "land-cover", tmp_path / "no spectra")


def test_the_digest_tells_data_sets_apart(land: Any, modules: Any, tmp_path: Path) -> None:
    again = modules.data.load_data(tmp_path, "land-cover", tmp_path / "no spectra")
    assert again.digest == land.digest
    target = np.load(tmp_path / "land-cover-test-target.npy")
    target[0, 0, 0] ^= 3
    np.save(tmp_path / "land-cover-test-target.npy", target)
    assert modules.data.load_data(tmp_path, "land-cover", tmp_path / "no spectra").digest != land.digest


def test_a_seed_draws_the_same_scenes_for_all_arms_and_another_seed_others(land: Any) -> None:
    half = land.share(0.5, seed=1)
    assert [id(chip) for chip in half] == [id(chip) for chip in land.share(0.5, seed=1)]
    assert len(half) == SCENES // 2
    assert len(land.share(0.001, seed=1)) == 1
    draws = {tuple(sorted(id(chip) for chip in land.share(0.5, seed))) for seed in range(20)}
    assert len(draws) > 1


def test_the_input_of_fewer_bands_keeps_their_statistics(land: Any) -> None:
    whole = land.spec(land.task.bands)
    part = land.spec(land.task.bands[3:5])
    assert (part.mean, part.stddev) == (whole.mean[3:5], whole.stddev[3:5])
    means = np.mean([chip.dn[3] for chip in land.train]) / 10_000
    assert part.mean[0] == pytest.approx(means, rel=1e-4)


def test_a_run_is_found_again_by_its_arm_seed_and_data_alone(land: Any, modules: Any) -> None:
    arm = modules.run.shorten(modules.arms.EXPERIMENTS["scale"].arms[0], 2)
    line = json.loads(json.dumps(modules.run.run_arm(arm, 1, land)))
    assert line["steps"] == 2
    assert 0 <= line["scores"]["mean_iou"] <= 1
    assert modules.run.find_run([line], arm, 1, land.digest) is line
    assert modules.run.find_run([line], arm, 2, land.digest) is None
    assert modules.run.find_run([line], arm, 1, "other") is None
    for other in (replace(arm, steps=3), replace(arm, bands=arm.bands[1:]), replace(arm, learning_rate=1e-4)):
        assert modules.run.find_run([line], other, 1, land.digest) is None


def test_a_run_comes_out_the_same_again(land: Any, modules: Any) -> None:
    arm = modules.run.shorten(modules.arms.EXPERIMENTS["lale"].arms[1], 2)
    one, other, third = (modules.run.run_arm(arm, seed, land) for seed in (4, 4, 5))
    assert one["scores"] == other["scores"]
    assert one["loss"] != third["loss"]


def test_a_run_learns_what_is_easy(land: Any, modules: Any) -> None:
    arm = modules.run.shorten(modules.arms.EXPERIMENTS["scale"].arms[2], 12)
    line = modules.run.run_arm(replace(arm, learning_rate=5e-3), 4, land)
    assert line["scores"]["overall_accuracy"] > 0.8
