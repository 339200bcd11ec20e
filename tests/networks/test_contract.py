"""What every architecture promises: independence, repeatability, and an answer to what it cannot take."""

from __future__ import annotations

import pytest
import torch

from geoseg_cli.errors import ModelError
from geoseg_cli.networks import create_network
from tests.fakes.networks import BANDS, CLASSES, SMALL_NETWORKS, small_network

FAMILIES = ("lale", "mscloudcam", "chromaformer-bands", "lemevit-upernet")


@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_images_of_a_batch_do_not_influence_each_other(label: str) -> None:
    network, x = small_network(label), torch.randn(3, BANDS, 40, 56)
    x[2] *= 1e3
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in x])
        spread = float(alone[:2].std())
        torch.testing.assert_close(network(x)[:2], alone[:2], atol=1e-4 * spread, rtol=0)


@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_the_same_image_gets_the_same_bytes_and_changes_nothing(label: str) -> None:
    network, x = small_network(label), torch.randn(2, BANDS, 40, 56)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        first, _, again = network(x), network(x.flip(0)), network(x)
    assert torch.equal(first, again)
    assert first.std() > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("label", FAMILIES)
def test_one_seed_gives_one_network(label: str) -> None:
    one, other = small_network(label).state_dict(), small_network(label).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("label", FAMILIES)
def test_weights_of_other_bands_or_classes_do_not_load(label: str) -> None:
    name, config = SMALL_NETWORKS[label]
    weights = small_network(label).state_dict()
    for bands, classes in ((BANDS + 1, CLASSES), (BANDS, CLASSES + 1)):
        with pytest.raises(RuntimeError, match="size mismatch"):
            create_network(name, bands, classes, **config).load_state_dict(weights)


@pytest.mark.parametrize("label", FAMILIES)
def test_an_image_of_other_bands_is_refused_with_both_numbers(label: str) -> None:
    with pytest.raises(ModelError, match="has 3 bands and the network 5") as caught:
        small_network(label)(torch.rand(1, 3, 32, 32))
    assert "bands" in caught.value.hint


@pytest.mark.parametrize("label", FAMILIES)
@pytest.mark.parametrize("shape", [(1, BANDS, 0, 32), (1, BANDS, 32, 0), (BANDS, 32, 32), (1, 1, BANDS, 32, 32)])
def test_what_is_no_image_is_refused_with_its_shape(label: str, shape: tuple[int, ...]) -> None:
    words = r"0 x 32|32 x 0" if 0 in shape else str(shape[-1])
    with pytest.raises(ModelError, match=words) as caught:
        small_network(label)(torch.rand(shape))
    assert caught.value.hint


@pytest.mark.parametrize("label", FAMILIES)
def test_an_empty_batch_gives_empty_logits(label: str) -> None:
    assert small_network(label)(torch.rand(0, BANDS, 32, 40)).shape == (0, CLASSES, 32, 40)


@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_one_pixel_is_enough(label: str) -> None:
    with torch.no_grad():
        logits = small_network(label)(torch.randn(1, BANDS, 1, 1))
    assert logits.shape == (1, CLASSES, 1, 1)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("label", ["mscloudcam", "lemevit-upernet", "lemevit-mlp"])
def test_training_on_one_small_image_is_refused_with_a_remedy(label: str) -> None:
    with pytest.raises(ModelError, match="cannot train on") as caught:
        small_network(label).train()(torch.rand(1, BANDS, 32, 32))
    assert "at least 2" in caught.value.hint


def test_the_light_lemevit_trains_on_one_image_of_more_than_one_coarse_pixel() -> None:
    main, _ = small_network("lemevit-mlp").train()(torch.rand(1, BANDS, 33, 32))
    assert main.shape == (1, CLASSES, 33, 32)
