"""Networks by name: every name builds what it says, and every mistake is named."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from geoseg_cli.errors import ModelError
from geoseg_cli.networks import create_network, network_names

PARAMETERS = {"lale-s1": 1_567_417, "lale-s2-k7": 2_671_559, "lemevit-tiny": 37_054_158}


@pytest.mark.parametrize("name", network_names())
def test_every_name_builds_a_network_of_its_own_size(name: str) -> None:
    with torch.device("meta"):
        network = create_network(name, bands=11, classes=7)
        assert sum(parameter.numel() for parameter in network.parameters()) > 10_000


def test_names_lead_to_the_published_sizes() -> None:
    with torch.device("meta"):
        sizes = {
            name: sum(parameter.numel() for parameter in create_network(name, 3, 7).parameters()) for name in PARAMETERS
        }
    assert sizes == PARAMETERS


@pytest.mark.parametrize("name", ["lale-s1", "mscloudcam-small", "chromaformer-t", "lemevit-tiny-light"])
def test_networks_score_every_pixel_in_evaluation(name: str) -> None:
    network = create_network(name, bands=5, classes=3).eval()
    with torch.no_grad():
        logits = network(torch.rand(2, 5, 64, 96))
    assert logits.shape == (2, 3, 64, 96)
    assert logits.dtype == torch.float32


def test_settings_replace_those_of_the_variant_and_lists_stand_for_tuples() -> None:
    network = create_network("lale-s1", 3, 7, depths=[1, 1, 1, 1], dropout=0.0)
    config = network.config
    assert config.depths == (1, 1, 1, 1)  # type: ignore[union-attr]
    assert config.kernel == 3  # type: ignore[union-attr]


def test_an_unknown_name_is_answered_with_the_right_ones() -> None:
    with pytest.raises(ModelError, match="lale-s9") as caught:
        create_network("lale-s9", 3, 7)
    assert all(name in caught.value.hint for name in network_names())


def test_an_unknown_setting_is_answered_with_the_right_ones() -> None:
    with pytest.raises(ModelError, match="depth_per_stage") as caught:
        create_network("lale-s1", 3, 7, depth_per_stage=3)
    assert "depths" in caught.value.hint


@pytest.mark.parametrize(("bands", "classes"), [(0, 7), (3, 0)])
def test_nothing_in_or_out_is_refused(bands: int, classes: int) -> None:
    with pytest.raises(ModelError, match=f"{bands} bands and {classes} classes"):
        create_network("lale-s1", bands, classes)


def test_listing_the_names_loads_no_torch() -> None:
    program = "import sys, geoseg_cli.networks as n; n.network_names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
