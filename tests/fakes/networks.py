"""One small network of each kind, with weights as after a little training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from geoseg_cli.networks import create_network

BANDS = 5
CLASSES = 4
_LIGHT_CHROMAFORMER = {"embed": 32, "depths": (2, 2, 2, 2), "heads": (1, 2, 4, 8), "head_width": 32}

# label -> (name, settings that make it small)
SMALL_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "lale": ("lale-s1", {}),
    "lale-k7": ("lale-s1-k7", {"depths": (2, 2, 1, 1)}),
    "mscloudcam": ("mscloudcam-small", {}),
    "chromaformer-bands": ("chromaformer-t", _LIGHT_CHROMAFORMER),
    "chromaformer-named-bands": ("chromaformer-t", _LIGHT_CHROMAFORMER | {"use_band_embedding": True}),
    "chromaformer-tokens": ("chromaformer-t", _LIGHT_CHROMAFORMER | {"sdm": "tokens"}),
    "lemevit-upernet": ("lemevit-tiny", {"decoder_width": 32}),
    "lemevit-mlp": ("lemevit-tiny-light", {}),
}


def small_network(label: str, **changes: Any) -> nn.Module:
    """Build a small network whose batch norms have seen data, in evaluation mode; the same one every time."""
    name, config = SMALL_NETWORKS[label]
    torch.manual_seed(0)
    network = create_network(name, BANDS, CLASSES, **(config | changes)).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(2, BANDS, 64, 64))
    return network.eval()
