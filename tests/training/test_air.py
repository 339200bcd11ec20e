"""Air laid over a sample or taken away: it can be undone, it is bluest, and it touches nothing that it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from geoseg_cli.training.air import channels_of_bands, draw_air, other_air, removable_air

BANDS = ("blue", "green", "red", "nir", "cirrus", "swir16")
LIT = [0, 1, 2, 3, 5]


def ground(seed: int = 0) -> np.ndarray:
    """(P, T, T) reflectance of ground and water, dark enough that little air can be above it."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.03, 0.5, (len(BANDS), 24, 24)).astype(np.float32)
    image[:, :4] = 0.003
    return image


EVERYWHERE = np.ones((24, 24), bool)


@pytest.mark.parametrize("seed", range(5))
def test_air_that_was_laid_over_ground_is_taken_away_again(seed: int) -> None:
    air, channels = draw_air(np.random.default_rng(seed)), channels_of_bands(BANDS)
    bare = ground(seed)
    seen = air.to_top(bare, channels)
    assert (seen[0] > bare[0])[:4].all()
    np.testing.assert_allclose(air.to_surface(seen, channels)[LIT], bare[LIT], atol=2e-6)


def test_air_is_added_to_dark_ground_and_taken_from_hazy_images() -> None:
    bare, hazy = ground(), draw_air(np.random.default_rng(3)).to_top(ground(), channels_of_bands(BANDS))
    of_bare = [other_air(bare, EVERYWHERE, BANDS, np.random.default_rng(seed))[0, :4].mean() for seed in range(20)]
    of_hazy = [other_air(hazy, EVERYWHERE, BANDS, np.random.default_rng(seed))[0, :4].mean() for seed in range(20)]
    assert min(of_bare) > bare[0, :4].mean()  # nothing below black can be taken away
    assert min(of_hazy) < hazy[0, :4].mean() < max(of_hazy)


def test_nothing_becomes_darker_than_black_beyond_the_darkest_pixels() -> None:
    hazy = draw_air(np.random.default_rng(3)).to_top(ground(), channels_of_bands(BANDS))
    for seed in range(30):
        found = other_air(hazy, EVERYWHERE, BANDS, np.random.default_rng(seed))
        assert (found[LIT] > 0).mean() > 0.98


def test_absent_bands_and_bands_that_vapour_darkens_stay_as_they_are() -> None:
    image = ground()
    image[3] = 0
    for seed in range(6):
        found = other_air(image, EVERYWHERE, BANDS, np.random.default_rng(seed))
        np.testing.assert_array_equal(found[[3, 4]], image[[3, 4]])
        assert not np.array_equal(found[0], image[0])


def test_an_image_without_a_valid_pixel_stays_as_it_is() -> None:
    image = ground()
    found = other_air(image, np.zeros((24, 24), bool), BANDS, np.random.default_rng(0))
    np.testing.assert_array_equal(found, image)


def test_no_air_is_removable_from_ground_that_is_black() -> None:
    assert removable_air(np.zeros((2, 8, 8), np.float32), ("blue", "red"), np.random.default_rng(0)) is None
