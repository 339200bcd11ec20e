"""The counter against arithmetic by hand, against fvcore, and against the published and derived tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks import create_network, network_names, published_interface
from geoseg_cli.networks.attention import DotProductAttention, set_explicit_attention
from geoseg_cli.networks.chromaformer import ChromaFormer
from geoseg_cli.networks.counting import count_macs, count_macs_by_module, count_parameters, measure_size
from geoseg_cli.networks.lale import LALE
from geoseg_cli.networks.lemevit import VARIANTS as LEMEVIT_VARIANTS
from geoseg_cli.networks.lemevit import LeMeViTClassifier
from geoseg_cli.networks.mscloudcam import MSCloudCAM

PUBLISHED_SIZES = {
    "lale-s1": 1_567_417, "lale-s2": 2_613_525, "lale-s3": 3_659_633, "lale-s4": 4_705_741,
    "lale-s1-k7": 1_596_519, "lale-s2-k7": 2_671_559, "lale-s3-k7": 3_746_599, "lale-s4-k7": 4_821_639,
    "mscloudcam": 47_446_157,
    "lemevit-tiny": 37_052_618, "lemevit-small": 45_588_842, "lemevit-base": 83_190_730,
}  # fmt: skip


def on_meta(name: str, bands: int, classes: int, **config: Any) -> nn.Module:
    with torch.device("meta"):
        return create_network(name, bands, classes, **config).eval()


def as_published(name: str, **config: Any) -> nn.Module:
    """Build a network in the order of operations that its published figure counts."""
    if name == "mscloudcam":
        config["head_order"] = config.get("head_order", "upsample-classify")
    interface = published_interface(name)
    network = on_meta(name, interface.bands, interface.classes, **config)
    if isinstance(network, LALE):
        network.decoder.is_concatenating = True
    if isinstance(network, MSCloudCAM):
        network.training = True  # both auxiliary heads run; the batch norms stay in evaluation
    return network


def test_a_convolution_costs_its_kernel_per_output() -> None:
    assert count_macs(nn.Conv2d(3, 5, 3, stride=2, padding=1), 3, 8, 12) == 4 * 6 * 5 * 3 * 9
    assert count_macs(nn.Conv2d(4, 4, 3, padding=1, groups=4), 4, 8, 12) == 8 * 12 * 4 * 9


def test_a_transposed_convolution_costs_its_kernel_per_input() -> None:
    assert count_macs(nn.ConvTranspose2d(3, 5, 2, stride=2), 3, 8, 12) == 8 * 12 * 3 * 5 * 4


class PixelAttention(nn.Module):
    """Pixels attend to pixels, and are then projected."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = DotProductAttention(1.0)
        self.project = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)[:, None]  # (N, 1, H * W, 4)
        projected: Tensor = self.project(self.attend(tokens, tokens, tokens))
        return projected


def test_attention_costs_two_products_and_a_linear_layer_one() -> None:
    positions = 6 * 5
    assert count_macs(PixelAttention(), 4, 6, 5) == 2 * positions**2 * 4 + positions * 4 * 7


def test_norms_and_resizing_count_only_as_charges() -> None:
    network = nn.Sequential(
        nn.BatchNorm2d(3), nn.LayerNorm(10), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU(), nn.Softmax(1)
    ).eval()
    assert count_macs(network, 3, 8, 10) == 0
    assert count_macs(network, 3, 8, 10, with_charges=True) == 3 * 8 * 10 * (2 + 5 + 4 * 4)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = create_network("lale-s1", 3, 7, depths=(1, 1, 1, 1)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_macs(network, 3, 64, 64)
    assert not network.training
    assert all(not module.explicit for module in network.modules() if isinstance(module, DotProductAttention))
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_weights_in_memory_and_weights_without_memory_count_alike() -> None:
    real = create_network("mscloudcam-small", 13, 4).eval()
    assert count_macs(real, 13, 96, 64) == count_macs(on_meta("mscloudcam-small", 13, 4), 13, 96, 64)


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(layer, layer)) == 12


@pytest.mark.parametrize("size", [(0, 8, 8), (3, 0, 8), (3, 8, -1)])
def test_empty_images_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ModelError, match=f"{size[0]} bands of {size[1]} x {size[2]}"):
        count_macs(nn.Conv2d(3, 3, 1), *size)


def small_classifier() -> nn.Module:
    return LeMeViTClassifier(4, 5, config=LEMEVIT_VARIANTS["tiny"])


# LeMeViT as a classifier: of its maps, fvcore leaves out what the last meta tokens read, which reaches no output.
SMALL: dict[str, Callable[[], nn.Module]] = {
    "lale-s1": lambda: create_network("lale-s1", 4, 5),
    "lale-s1-k7": lambda: create_network("lale-s1-k7", 4, 5, depths=(1, 1, 1, 1)),
    "mscloudcam-small": lambda: create_network("mscloudcam-small", 4, 5),
    "chromaformer": lambda: create_network("chromaformer-t", 4, 5, embed=16, heads=(1, 2, 4, 8), window=4),
    "lemevit-tiny": small_classifier,
}
# fvcore takes a product that broadcasts for one of its first operand alone. In adaptive pooling that misses all but
# one of the 128 channels of 4 rows in bins squared.
MISSED_THERE = {"mscloudcam-small": 127 * 4 * (1 + 4 + 9 + 36)}


@pytest.mark.parametrize("name", SMALL)
def test_counts_agree_with_fvcore(name: str) -> None:
    fvcore = pytest.importorskip("fvcore.nn")
    network = SMALL[name]().eval()
    ours, charged = (count_macs(network, 4, 64, 96, with_charges=charges) for charges in (False, True))
    set_explicit_attention(network)
    with torch.no_grad():
        analysis = fvcore.FlopCountAnalysis(network, torch.rand(1, 4, 64, 96))
        theirs = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    missed = MISSED_THERE.get(name, 0)
    assert ours == sum(theirs[operator] for operator in ("conv", "linear", "matmul")) + missed
    assert charged == sum(theirs.values()) + missed


@pytest.mark.parametrize("name", network_names())
def test_every_network_has_a_size(name: str) -> None:
    interface = published_interface(name)
    size = measure_size(name, interface.bands, interface.classes, sides_px=(64, 128))
    assert size.parameters == PUBLISHED_SIZES.get(name, size.parameters)
    assert size.parameters > 1_000_000
    assert list(size.macs) == [64, 128]
    # Four times the pixels cost at least four times as much, but for what does not grow: meta tokens, image pooling,
    # position tables, and windows that are padding at the smaller size.
    assert 2 < size.macs[128] / size.macs[64] < 8


def test_an_unknown_network_has_no_published_interface() -> None:
    with pytest.raises(ModelError, match="lale-s9") as caught:
        published_interface("lale-s9")
    assert "lale-s1" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        ("lale-s1", 0.5867), ("lale-s2", 0.7791), ("lale-s3", 0.9715), ("lale-s4", 1.1639),
        ("lale-s1-k7", 0.6606), ("lale-s2-k7", 0.9223), ("lale-s3-k7", 1.1840), ("lale-s4-k7", 1.4457),
    ],
)  # fmt: skip
def test_lale_costs_what_its_table_says(name: str, gmacs: float) -> None:
    assert count_macs(as_published(name), 3, 256, 256, with_charges=True) / 1e9 == pytest.approx(gmacs, abs=6e-5)


@pytest.mark.parametrize(
    ("config", "gmacs"),
    [
        ({}, 42.380),
        ({"cam": "bypassed"}, 38.958),
        ({"head_order": "classify-upsample"}, 41.567),
        ({"head_order": "classify-upsample", "cam": "bypassed"}, 38.144),
    ],
)
def test_mscloudcam_costs_what_its_table_says(config: dict[str, Any], gmacs: float) -> None:
    counted = count_macs(as_published("mscloudcam", **config), 13, 512, 512, with_charges=True)
    assert counted / 1e9 == pytest.approx(gmacs, rel=2e-4)


@pytest.mark.parametrize(("variant", "gmacs"), [("tiny", 1.946), ("small", 3.956), ("base", 11.741)])
def test_lemevit_classifiers_cost_what_their_table_says(variant: str, gmacs: float) -> None:
    with torch.device("meta"):
        network = LeMeViTClassifier(3, 1000, config=LEMEVIT_VARIANTS[variant]).eval()
    assert count_macs(network, 3, 224, 224) / 1e9 == pytest.approx(gmacs, abs=6e-4)


@pytest.mark.parametrize(("name", "gmacs"), [("tiny", 221.449), ("small", 232.724), ("base", 279.787)])
def test_lemevit_segmentation_costs_what_its_table_says(name: str, gmacs: float) -> None:
    counted = count_macs(as_published(f"lemevit-{name}"), 3, 512, 512)
    assert counted / 1e9 == pytest.approx(gmacs, rel=0.005)


@pytest.mark.parametrize(
    ("name", "at_224", "at_256"),
    [("t", 4.628, 6.140), ("s", 8.981, 11.903), ("b", 15.742, 20.787), ("l", 34.927, 45.953), ("h", 115.935, 152.027)],
)
def test_chromaformer_backbones_cost_what_their_table_says(name: str, at_224: float, at_256: float) -> None:
    for side_px, window, gmacs in ((224, 7, at_224), (256, 8, at_256)):
        network = on_meta(f"chromaformer-{name}", 11, 15, sdm="none", window=window)
        assert isinstance(network, ChromaFormer)
        # The released code computes the position bias per pair of tokens; ours once per offset between them.
        per_pair = window**4 - (2 * window - 1) ** 2
        blocks = zip(network.config.depths, network.config.heads, strict=True)
        saved = sum(depth * per_pair * 256 * (2 + heads) for depth, heads in blocks)
        counted = count_macs(network.backbone, 11, side_px, side_px) + saved
        assert counted / 1e9 == pytest.approx(gmacs, abs=6e-4)


def test_every_part_of_mscloudcam_costs_its_share() -> None:
    gmacs = {
        name: macs / 1e9
        for name, macs in count_macs_by_module(as_published("mscloudcam"), 13, 512, 512, with_charges=True).items()
    }
    expected = {
        "backbone": 25.851, "coarse_context": 2.304, "fine_context": 6.811, "cam": 3.423, "bottleneck": 0.940,
        "decoder.0": 0.539, "decoder.1": 0.541, "decoder.2": 0.545, "decoder.3": 0.554,
        "head": 0.034, "auxiliary_heads.0": 0.268, "auxiliary_heads.1": 0.134,
    }  # fmt: skip
    assert {name: gmacs[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=6e-4)


def test_the_whole_is_the_sum_of_its_parts() -> None:
    network = on_meta("mscloudcam-small", 13, 4)
    by_module = count_macs_by_module(network, 13, 64, 64)
    parts = sum(macs for name, macs in by_module.items() if name and "." not in name and name != "decoder")
    parts += sum(macs for name, macs in by_module.items() if name in {f"decoder.{index}" for index in range(4)})
    assert by_module[""] == parts == count_macs(network, 13, 64, 64)
