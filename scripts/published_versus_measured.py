"""Write docs/published_versus_measured.md: what the papers publish, beside what the networks here measure.

    python scripts/published_versus_measured.py [--check]

The published figures are read from docs/published_figures.toml; ours are counted without allocating any weights.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "published_figures.toml"
TABLE = ROOT / "docs" / "published_versus_measured.md"
sys.path.insert(0, str(ROOT / "benchmarks"))

from baselines import BASELINES, UNUSED_CLASSIFIER_PARAMETERS  # noqa: E402

from geoseg_cli.networks import create_network, published_interface  # noqa: E402
from geoseg_cli.networks.attention import DotProductAttention  # noqa: E402
from geoseg_cli.networks.counting import count_macs_by_module, count_parameters  # noqa: E402
from geoseg_cli.networks.lale import LALE  # noqa: E402
from geoseg_cli.networks.lemevit import LeMeViT, LeMeViTClassifier  # noqa: E402
from geoseg_cli.networks.mscloudcam import MSCloudCAM  # noqa: E402

# the statistics of that convolution's norm, which are stored and not learned
UNUSED_CLASSIFIER_STATISTICS = 2 * 1280
LALE_INTERFACE = published_interface("lale-s1")


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to count.

    Attributes:
        module: The network, on the meta device.
        bands: Its input bands.
        unused: Parameters that the published count holds and ours does not need.
    """

    module: nn.Module
    bands: int
    unused: int


def main() -> None:
    """Write the table, or tell whether the one that is there is up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the table is out of date")
    check = parser.parse_args().check
    figures = read_figures()
    text = render(figures, measure_all(figures["group"]))
    if check:
        sys.exit(0 if TABLE.read_text(encoding="utf-8") == text else f"{TABLE.name} is out of date")
    TABLE.write_text(text, encoding="utf-8")
    print(TABLE.relative_to(ROOT))


def read_figures() -> dict[str, Any]:
    """Read the published figures."""
    return tomllib.loads(FIGURES.read_text(encoding="utf-8"))


def measure_all(groups: list[dict[str, Any]]) -> dict[str, float]:
    """Measure every figure of some groups in its printed unit, by id."""
    ours: dict[str, float] = {}
    for figure in (figure for group in groups for figure in group["figure"]):
        recipe = figure["ours"]
        if recipe["kind"] == "ratio":
            ours[figure["id"]] = ours[recipe["over"]] / ours[recipe["under"]]
        elif recipe["kind"] == "sum":
            ours[figure["id"]] = sum(ours[one] for one in recipe["of"])
        else:
            ours[figure["id"]] = measure(recipe)
    return ours


def measure(recipe: dict[str, Any]) -> float:
    """Measure one figure: parameters in millions, storage in MiB, or multiply-adds in 10^9."""
    subject = build(recipe)
    part = recipe.get("part", "")
    if recipe["kind"] == "gmacs":
        return count_gmacs(subject, recipe["side_px"], recipe["counted"], part)
    parameters = count_parameters(subject.module.get_submodule(part)) + subject.unused
    if recipe["kind"] == "parameters":
        return parameters / 1e6
    assert recipe["kind"] == "mebibytes", recipe["kind"]
    statistics = sum(buffer.numel() for buffer in subject.module.buffers() if buffer.is_floating_point())
    return 4 * (parameters + statistics + (UNUSED_CLASSIFIER_STATISTICS if subject.unused else 0)) / 2**20


def build(recipe: dict[str, Any]) -> Subject:
    """Build the network of a recipe without its weights, in evaluation mode."""
    with torch.device("meta"):
        if "baseline" in recipe:
            module = BASELINES[recipe["baseline"]](LALE_INTERFACE.bands, LALE_INTERFACE.classes).eval()
            unused = UNUSED_CLASSIFIER_PARAMETERS if recipe.get("unused") else 0
            return Subject(module, LALE_INTERFACE.bands, unused)
        interface = published_interface(recipe["network"])
        config = recipe.get("config", {})
        if recipe.get("as_published") and recipe["network"].startswith("mscloudcam"):
            config = config | {"head_order": "upsample-classify"}
        classes = recipe.get("classes", interface.classes)
        module = create_network(recipe["network"], interface.bands, classes, **config).eval()
        if recipe.get("head") == "classify":
            assert isinstance(module, LeMeViT)
            module = LeMeViTClassifier(interface.bands, classes, config=module.config).eval()
    if recipe.get("as_published"):
        order_as_published(module)
    return Subject(module, interface.bands, 0)


def order_as_published(module: nn.Module) -> None:
    """Give a network the operations that its published figure counts."""
    if isinstance(module, LALE):
        module.decoder.is_concatenating = True
    if isinstance(module, MSCloudCAM):
        # Only the network itself, for its auxiliary heads: batch norms cannot train on one image.
        module.training = True


def count_gmacs(subject: Subject, side_px: int, counted: str, part: str) -> float:
    """Count multiply-adds of a square image in 10^9, by the rule that the published figure follows."""
    by_module = count_macs_by_module(subject.module, subject.bands, side_px, side_px, with_charges=counted == "charged")
    macs = by_module[part]
    if counted == "no attention":
        modules = subject.module.named_modules()
        macs -= sum(
            by_module[name] for name, one in modules if isinstance(one, DotProductAttention) and name in by_module
        )
    return macs / 1e9


def render(figures: dict[str, Any], ours: dict[str, float]) -> str:
    """Write the page."""
    marks = ", ".join(f"{mark} {meaning}" for mark, meaning in figures["marks"].items())
    parts = [
        "# Published and measured\n",
        "Generated by `python scripts/published_versus_measured.py` from `docs/published_figures.toml`; do not edit.\n",
        f'Sources: {marks}. "Same digits" says whether ours rounds to what is printed.\n',
        *(render_group(group, ours) for group in figures["group"]),
        "## Where the sources contradict themselves\n",
        *(f"**{one['title']}.** {one['text'].format_map(ours)}\n" for one in figures["contradiction"]),
        "## Left out\n",
        *(f"{one['text']}\n" for one in figures["omitted"]),
    ]
    return "\n".join(parts)


def render_group(group: dict[str, Any], ours: dict[str, float]) -> str:
    """Write the table of one architecture."""
    rows = [
        f"## {group['title']}\n",
        f"{group['source']}. {group['about']}\n",
        "| figure | published | ours | difference | same digits | source |",
        "|---|---:|---:|---:|---|---|",
        *(render_figure(figure, ours[figure["id"]]) for figure in group["figure"]),
        "",
    ]
    return "\n".join(rows)


def render_figure(figure: dict[str, Any], ours: float) -> str:
    """Write one row; ours with two digits more than the published."""
    printed = figure["published"]
    if not printed:
        return f"| {figure['what']} | - | {ours:.3f} {figure['unit']} | - | - | - |"
    digits = len(printed.partition(".")[2])
    difference = (ours - float(printed)) / float(printed)
    same = "yes" if f"{ours:.{digits}f}" == printed else "no"
    cells = (
        figure["what"],
        f"{printed} {figure['unit']}",
        f"{ours:.{digits + 2}f} {figure['unit']}",
        f"{difference:+.1%}".replace("-0.0%", "+0.0%"),
        same,
        figure["source"],
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
