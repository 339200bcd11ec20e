"""docs/aims.md says what the cards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoseg_cli.bundle import Bundle

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["landcover-lale", "cloud-lale"])
def test_the_page_of_aims_has_every_row_of_the_card_and_no_other(name: str) -> None:
    page = (ROOT / "docs" / "aims.md").read_text(encoding="utf-8")
    part = page.split(f"## {name}\n")[1].split("\n## ")[0]
    shown = [line for line in part.splitlines() if line.startswith("|")][2:]
    aims = Bundle.open(ROOT / "models" / name).card.extras.metrics["aims"]
    assert shown == [
        f"| {aim['aim']} | {aim['wanted']} | {aim['measured']} | {aim['where']} | {'yes' if aim['met'] else 'no'} |"
        for aim in aims
    ]
