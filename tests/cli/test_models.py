"""``models architectures``: what it lists and counts."""

from __future__ import annotations

import json

import pytest

import geoseg_cli.networks
from geoseg_cli.networks import network_names
from tests.cli.conftest import Run


@pytest.fixture
def two_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """List two networks only, for speed."""
    monkeypatch.setattr(geoseg_cli.networks, "network_names", lambda: ("lale-s1", "mscloudcam-small"))


@pytest.mark.usefixtures("two_networks")
def test_architectures_are_listed_with_published_bands_and_the_counting_rule(run: Run) -> None:
    done = run("models", "architectures")
    header, first, second, rule = done.out.splitlines()
    assert header.split() == ["name", "bands", "classes", "parameters", "GMAC", "256x256", "GMAC", "512x512"]
    assert first.split() == ["lale-s1", "3", "7", "1,567,417", "0.399", "1.823"]
    assert second.split()[:4] == ["mscloudcam-small", "13", "4", "3,896,489"]
    assert "attention included" in rule
    assert (done.code, done.err) == (0, "")


@pytest.mark.usefixtures("two_networks")
def test_json_counts_to_the_unit_for_the_bands_and_classes_asked_for(run: Run) -> None:
    rows = json.loads(run("models", "architectures", "--json", "--bands", 4, "--classes", 2).out)
    assert [(row["name"], row["bands"], row["classes"]) for row in rows] == [
        ("lale-s1", 4, 2),
        ("mscloudcam-small", 4, 2),
    ]
    # a band costs 144 weights of the stem, a class 129 of the classifier
    assert rows[0]["parameters"] == 1_567_417 + 144 - 5 * 129
    assert rows[0]["macs_512px"] > 4 * rows[0]["macs_256px"]


def test_nothing_in_or_out_is_refused(run: Run) -> None:
    assert run("models", "architectures", "--bands", 0).code == 2
    assert run("models", "architectures", "--classes", 0).code == 2


@pytest.mark.slow
def test_every_network_is_listed(run: Run) -> None:
    rows = json.loads(run("models", "architectures", "--json").out)
    assert [row["name"] for row in rows] == list(network_names())
