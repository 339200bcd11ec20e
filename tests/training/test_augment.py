"""Samples: what is seen and what is labelled move together, and normalisation is that of the card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from geoseg_cli.bundle import InputSpec
from geoseg_cli.training.augment import (
    SNOW,
    AugmentOptions,
    Source,
    draw_batch,
    draw_sample,
    draw_view_batch,
    draw_views,
    whole_sample,
)
from geoseg_cli.training.chips import DN_NODATA, Chip

SPEC = InputSpec(("red", "nir", "swir16"), ("swir16",), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CALM = AugmentOptions(gain=0, band_gain=0, offset=0, noise=0, wedge=0, set_share=0, drop_share=0)


def make_chip(height: int = 40, width: int = 48, bands: tuple[str, ...] = ("nir", "red", "swir16")) -> Chip:
    """Reflectance and target both tell which pixel it is: band b of pixel (r, c) is 4 r + c + 500 b, modulo chance."""
    number = np.random.default_rng(0).integers(1, 127, (height, width))
    dn = np.stack([number * 10 + 2000 * place for place in range(len(bands))]).astype(np.int16)
    return Chip("test", bands, dn, number.astype(np.uint8))


@pytest.mark.parametrize("seed", range(12))
def test_pixels_and_labels_stay_together_however_the_square_is_turned(seed: int) -> None:
    sample = draw_sample(Source([make_chip()]), 16, SPEC, CALM, np.random.default_rng(seed))
    assert sample.pixels.shape == (4, 16, 16)
    np.testing.assert_allclose(sample.pixels[1], sample.target * 1e-3, rtol=1e-6)  # nir is the chip's first band
    np.testing.assert_allclose(sample.pixels[0], sample.target * 1e-3 + 0.2, rtol=1e-6)
    assert (sample.pixels[3] == 1).all()


def test_all_eight_positions_of_a_square_occur() -> None:
    chip = make_chip(8, 8)
    rng = np.random.default_rng(0)
    seen = {draw_sample(Source([chip]), 8, SPEC, CALM, rng).target.tobytes() for _ in range(200)}
    wanted = {np.rot90(side, turn).tobytes() for side in (chip.target, chip.target[:, ::-1]) for turn in range(4)}
    assert seen == wanted


def test_a_sample_of_a_seed_is_always_the_same() -> None:
    sources = [Source([make_chip()], zoom=(0.5, 2.0)), Source([make_chip(20, 20)], is_mosaic=True)]
    first, second = (draw_batch(sources, 6, 24, SPEC, AugmentOptions(), np.random.default_rng(5)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert (one.pixels == other.pixels).all()
        assert (one.target == other.target).all()


def test_the_sample_is_what_the_input_spec_makes_of_the_chip() -> None:
    spec = InputSpec(("red", "nir", "swir16"), ("swir16",), (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    chip = make_chip()
    reflectance = chip.dn[[1, 0, 2]].astype(np.float32) / np.float32(1e4)
    wanted = spec.apply(reflectance, np.ones(chip.target.shape, bool), (True, True, True))
    np.testing.assert_array_equal(whole_sample(chip, spec).pixels, wanted)


def test_zooming_out_averages_areas_and_takes_labels_from_the_middle() -> None:
    dn = np.kron(np.arange(64).reshape(8, 8) * 100, np.ones((2, 2), int)).astype(np.int16)
    dn[::2, ::2] += 40  # averages to + 10 in each cell
    target = np.kron((np.arange(64) % 7 + 1).reshape(8, 8), np.ones((2, 2), int)).astype(np.uint8)
    chip = Chip("test", ("red",), dn[None], target)
    spec = InputSpec(("red",), (), (0.0,), (1.0,))
    sample = draw_sample(Source([chip], zoom=(2.0, 2.0)), 8, spec, CALM, np.random.default_rng(0))
    cells = np.rint((sample.pixels[0] * 1e4 - 10) / 100).astype(int)
    assert sorted(cells.ravel()) == list(range(64))
    assert (sample.target == cells % 7 + 1).all()


@pytest.mark.parametrize("zoom", [0.5, 1.0, 1.6, 2.0])
def test_invalid_pixels_do_not_darken_their_neighbours(zoom: float) -> None:
    dn = np.full((1, 64, 64), 5000, np.int16)
    dn[:, :, :20] = DN_NODATA
    chip = Chip("test", ("red",), dn, np.ones((64, 64), np.uint8))
    spec = InputSpec(("red",), (), (0.0,), (1.0,))
    sample = draw_sample(Source([chip], zoom=(zoom, zoom)), 32, spec, CALM, np.random.default_rng(3))
    valid = sample.target == 1
    np.testing.assert_allclose(sample.pixels[0][valid], 0.5, rtol=1e-5)
    assert (sample.pixels[0][~valid] == 0).all()


def test_a_mosaic_covers_the_whole_sample_with_several_chips() -> None:
    chips = [
        Chip("t", ("red",), np.full((1, 8, 8), 100 * n, np.int16), np.full((8, 8), n, np.uint8)) for n in (1, 2, 3)
    ]
    spec = InputSpec(("red",), (), (0.0,), (1.0,))
    sample = draw_sample(Source(chips, is_mosaic=True), 40, spec, CALM, np.random.default_rng(0))
    assert set(np.unique(sample.target)) == {1, 2, 3}
    np.testing.assert_allclose(sample.pixels[0], sample.target / 100, rtol=1e-5)


@pytest.mark.parametrize("piece_px", [None, (6, 12)])
def test_scattered_pixels_keep_spectrum_and_label_and_lose_their_neighbours(piece_px: tuple[int, int] | None) -> None:
    dn = np.arange(32 * 32, dtype=np.int16).reshape(1, 32, 32) * 10  # a ramp: neighbours of a row differ by 10
    target = (np.arange(32 * 32) % 127 + 1).reshape(32, 32).astype(np.uint8)
    source = Source([Chip("t", ("red",), dn, target)], is_mosaic=True, piece_px=piece_px, is_scattered=True)
    spec = InputSpec(("red",), (), (0.0,), (1.0,))
    sample = draw_sample(source, 33, spec, CALM, np.random.default_rng(4))
    number = np.rint(sample.pixels[0] * 1e3).astype(int)
    assert (sample.target == number % 127 + 1).all()
    assert (np.abs(np.diff(number, axis=1)) <= 1).mean() < 0.05
    # 33 px show parts of two by two cells of 32 px, each of one piece.
    assert (len(np.unique(number)) <= 4 * 12**2) == (piece_px is not None)


def test_a_chip_that_is_too_small_is_shown_larger() -> None:
    sample = draw_sample(Source([make_chip(16, 16)]), 32, SPEC, CALM, np.random.default_rng(0))
    assert sample.pixels.shape == (4, 32, 32)
    assert (sample.target[::2, ::2] == sample.target[1::2, 1::2]).all()


def test_a_wedge_hides_pixels_and_labels_alike() -> None:
    options = AugmentOptions(gain=0, band_gain=0, offset=0, noise=0, wedge=1, set_share=0, drop_share=0)
    shares = []
    for seed in range(20):
        sample = draw_sample(Source([make_chip()]), 32, SPEC, options, np.random.default_rng(seed))
        hidden = sample.target == 0
        assert (sample.pixels[:3, hidden] == 0).all()
        assert (sample.pixels[0, ~hidden] > 0).all()
        shares.append(hidden.mean())
    assert max(shares) > 0.1
    assert max(shares) < 0.6


def test_dropped_bands_are_zero_and_say_so() -> None:
    options = AugmentOptions(wedge=0, set_share=1.0, band_sets=((),))
    sample = draw_sample(Source([make_chip()]), 16, SPEC, options, np.random.default_rng(0))
    assert (sample.pixels[2:] == 0).all()
    assert (sample.pixels[:2] != 0).any()


def test_a_band_that_the_chip_lacks_is_absent() -> None:
    chip = make_chip(bands=("red", "nir"))
    assert (draw_sample(Source([chip]), 16, SPEC, CALM, np.random.default_rng(0)).pixels[2:] == 0).all()
    assert (whole_sample(chip, SPEC).pixels[2:] == 0).all()


def test_a_band_of_nodata_alone_is_absent_and_the_pixels_stay_valid() -> None:
    chip = make_chip()
    chip.dn[2] = DN_NODATA
    sample = whole_sample(chip, SPEC)
    assert (sample.pixels[2:] == 0).all()
    assert (sample.target == chip.target).all()


def test_radiometric_errors_stay_within_their_bounds() -> None:
    options = AugmentOptions(noise=0, wedge=0, set_share=0, drop_share=0)
    chip = Chip("t", ("red",), np.full((1, 8, 8), 4000, np.int16), np.ones((8, 8), np.uint8))
    spec = InputSpec(("red",), (), (0.0,), (1.0,))
    values = [
        draw_sample(Source([chip]), 8, spec, options, np.random.default_rng(seed)).pixels[0, 0, 0]
        for seed in range(300)
    ]
    assert 0.4 * 0.9 * 0.97 - 0.013 <= min(values) < 0.4 < max(values) <= 0.4 * 1.1 * 1.03 + 0.013
    assert np.std(values) > 0.02


def test_sources_are_drawn_by_their_share_and_lend_their_weight() -> None:
    sources = [Source([make_chip()], share=3.0), Source([make_chip()], share=1.0, weight=0.3)]
    batch = draw_batch(sources, 400, 8, SPEC, CALM, np.random.default_rng(0))
    light = sum(sample.weight == 0.3 for sample in batch)
    assert 60 < light < 140


@pytest.mark.parametrize("seed", range(12))
def test_two_views_show_the_same_ground_as_far_apart_as_they_say(seed: int) -> None:
    options = replace(CALM, shift_px=7)
    views = draw_views(Source([make_chip()]), 16, SPEC, options, np.random.default_rng(seed))
    down, right = views.shift
    assert max(abs(down), abs(right)) <= 7
    first = views.first.pixels[:, max(down, 0) : 16 + min(down, 0), max(right, 0) : 16 + min(right, 0)]
    second = views.second.pixels[:, max(-down, 0) : 16 + min(-down, 0), max(-right, 0) : 16 + min(-right, 0)]
    assert first.shape == (4, 16 - abs(down), 16 - abs(right))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(views.second.pixels[1], views.second.target * 1e-3, rtol=1e-6)


def test_two_views_differ_in_errors_and_have_the_same_bands() -> None:
    options = AugmentOptions(wedge=0, set_share=0.5, drop_share=0.5, shift_px=0)
    held = set()
    for seed in range(20):
        views = draw_views(Source([make_chip()]), 16, SPEC, options, np.random.default_rng(seed))
        assert not np.array_equal(views.first.pixels[0], views.second.pixels[0])
        np.testing.assert_array_equal(views.first.pixels[3], views.second.pixels[3])
        np.testing.assert_array_equal(views.first.target, views.second.target)
        held.add(bool(views.first.pixels[3].any()))
    assert held == {True, False}


def test_views_are_drawn_by_the_share_of_their_source() -> None:
    sources = [Source([make_chip()], share=3.0), Source([make_chip()], share=1.0, weight=0.3)]
    batch = draw_view_batch(sources, 200, 8, SPEC, replace(CALM, shift_px=4), np.random.default_rng(0))
    assert all(views.first.weight == views.second.weight for views in batch)
    assert 30 < sum(views.first.weight == 0.3 for views in batch) < 70


def test_brightened_samples_keep_their_label_and_stay_below_snow() -> None:
    dn = np.full((1, 8, 8), 2000, np.int16)
    dn[0, 0] = 4000
    chip, spec = Chip("t", ("red",), dn, np.ones((8, 8), np.uint8)), InputSpec(("red",), (), (0.0,), (1.0,))
    source = Source([chip], brighten=4.0)
    samples = [draw_sample(source, 8, spec, CALM, np.random.default_rng(seed)) for seed in range(100)]
    gains = [float(sample.pixels.max()) / 0.4 for sample in samples]
    assert 1 <= min(gains) < 1.1
    assert max(gains) == pytest.approx(SNOW / 0.4, rel=0.02)
    assert all((sample.target == 1).all() for sample in samples)
    dazzling = Source([replace(chip, dn=dn * 4)], brighten=4.0)
    assert draw_sample(dazzling, 8, spec, CALM, np.random.default_rng(0)).pixels.max() == pytest.approx(1.6)
