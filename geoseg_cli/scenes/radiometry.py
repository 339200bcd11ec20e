"""Which physical value a stored number means: reflectance = number * scale + offset.

The rungs of a ladder are tried in order and the first that holds decides; where none does, the scene is
refused, because a wrong guess is a wrong map. The order, and why neither date nor histogram may decide:
Sentinel-2 products carry +1000 since processing baseline 04.00, reprocessed scenes of any date do too, and
catalogues subtract it without a trace (ESA STEP forum, "Info: Introduction of additional radiometric offset
in PB04.00 products").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.errors import InputError, RadiometryError, UsageError

CHOICES = ("auto", "reflectance", "dn", "dn-1000")
"""Values of ``--radiometry``."""

DN_SCALE = 1e-4
"""Reflectance per digital number: QUANTIFICATION_VALUE 10000 of the Sentinel-2 product metadata."""

DN_OFFSET = -1000 * DN_SCALE
"""Offset of Sentinel-2 products from baseline 04.00 on: BOA_ADD_OFFSET, RADIO_ADD_OFFSET."""

_FIRST_BASELINE_WITH_OFFSET = 400
_LOCAL_BASELINE = 9999
"""Sentinel-2 toolboxes name what they process themselves N9999, with or without the offset."""

_PRODUCT = re.compile(r"^S2[A-D]_MSIL(?:1C|2A)_.*_N(\d{4})_")
_DARK_DN, _DARK_BLUE_DN = 900, 500
_UNTAGGED_FILL = 0.02
_MAX_REFLECTANCE = 2.0
_MIN_REFLECTANCE = -1.0

_HINT = (
    "say what the numbers mean: --radiometry dn (0.0001 x DN), --radiometry dn-1000 (0.0001 x (DN - 1000),"
    " Sentinel-2 from baseline 04.00 on) or --radiometry reflectance (1.0 is white); or write scale and"
    " offset into the file, for Landsat Collection 2: gdal_edit.py -scale 0.0000275 -offset -0.2 FILE"
)


@dataclass(frozen=True, slots=True)
class Radiometry:
    """What the numbers of a scene mean.

    Attributes:
        scale: Reflectance per stored number, one per present band.
        offset: Reflectance of the stored number 0, one per present band.
        rung: Which rung of the ladder decided: ``option``, ``metadata``, ``product``, ``stac``, ``tags``,
            ``baseline`` or ``float``.
        reason: The decision and its evidence as a sentence.
        warnings: What speaks against the decision.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    rung: str
    reason: str
    warnings: tuple[str, ...] = ()

    def apply(self, pixels: Array, arrays: Arrays = NUMPY) -> Array:
        """Turn stored numbers into reflectance.

        Args:
            pixels: (..., P, H, W) of any real dtype, the present bands.
            arrays: What computes, and where; ``pixels`` is one of them.

        Returns:
            (..., P, H, W) float32 reflectance, 1.0 is white; nodata numbers are scaled like all others.
        """
        scale, offset = (
            arrays.put(np.asarray(numbers, np.float32)[:, None, None]) for numbers in (self.scale, self.offset)
        )
        # Nodata numbers such as -1.8e308 do not fit float32; they are masked later.
        with np.errstate(over="ignore", invalid="ignore"):
            reflectance = arrays.as_float32(pixels)
            reflectance *= scale
            reflectance += offset
        return reflectance


@dataclass(frozen=True, slots=True)
class Claim:
    """What one source says the numbers mean.

    Attributes:
        rung: Which one.
        reason: The formula and where it stands.
        scales, offsets: Of each present band.
        contradiction: What the same source says besides that cannot be true as well; ``""`` for nothing.
    """

    rung: str
    reason: str
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    contradiction: str = ""

    def agrees(self, other: Claim) -> bool:
        """Whether both give the same reflectance, to a thousandth of the scale and a tenth of a digital number."""
        is_near = np.allclose(self.scales, other.scales, rtol=1e-3)
        return bool(is_near and np.allclose(self.offsets, other.offsets, atol=0.1 * DN_SCALE))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a scene says about its numbers.

    Attributes:
        path: The scene; products write their baseline into their names.
        bands: Common name of each present band.
        dtypes: Numpy name of each present band's dtype.
        scales, offsets: Scale and offset tag of each present band; 1 and 0 where there is none.
        sample: Reads (P, n) stored numbers from valid pixels all over the scene.
        stated: What the metadata of the product says.
    """

    path: Path
    bands: tuple[str, ...]
    dtypes: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    sample: Callable[[], npt.NDArray[Any]] = field(repr=False)
    stated: Claim | None = None

    @property
    def has_tags(self) -> bool:
        """Whether some band has a scale or an offset tag that says something."""
        return any(tag != (1.0, 0.0) for tag in zip(self.scales, self.offsets, strict=True))


def refuse_rendered(path: Path, dtypes: tuple[str, ...], has_tags: bool) -> None:
    """Refuse images made for the eye: 8-bit numbers that no tag ties to reflectance, and complex ones.

    Raises:
        InputError: The bands cannot hold reflectance.
    """
    if any(dtype.startswith("complex") for dtype in dtypes):
        raise InputError(f"{path}: complex numbers, as of radar, are no reflectance", "give an optical scene")
    if not has_tags and any(dtype in ("uint8", "int8") for dtype in dtypes):
        raise InputError(
            f"{path}: 8-bit rendered image: its numbers are brightness for the eye, not reflectance",
            "give the scene that the image was made from, with 16-bit or float bands",
        )


def decide_radiometry(choice: str, evidence: Evidence) -> Radiometry:
    """Decide what the numbers of a scene mean.

    Args:
        choice: One of :data:`CHOICES`.
        evidence: What the scene says.

    Returns:
        The decision of the first rung that holds, with warnings where a sample of the numbers contradicts it.

    Raises:
        UsageError: ``choice`` is none of the choices.
        RadiometryError: No rung holds, or the tags contradict each other.
    """
    if choice not in CHOICES:
        raise UsageError(f"--radiometry {choice} is unknown", f"use one of {', '.join(CHOICES)}")
    sample = evidence.sample()
    decided = _by_option(choice, evidence) or _by_claims(evidence) or _by_float_range(evidence, sample)
    if decided is None:
        kind = evidence.dtypes[0]
        raise RadiometryError(f"{evidence.path}: nothing says what its {kind} numbers mean", _HINT)
    return replace(decided, warnings=_doubts(decided, evidence, sample))


def _by_claims(evidence: Evidence) -> Radiometry | None:
    """The first of metadata, tags and product name that says something; those that follow must agree with it.

    Raises:
        RadiometryError: They do not: one of them is wrong, and nothing tells which.
    """
    claims = [c for c in (_by_statement(evidence), _by_tags(evidence), _by_baseline(evidence)) if c is not None]
    if not claims:
        return None
    first, *others = claims
    rivals = [first.contradiction, *(other.reason for other in others if not first.agrees(other))]
    if rival := next(filter(None, rivals), None):
        raise RadiometryError(
            f"{evidence.path}: two sources disagree about the numbers: {first.reason}; but {rival}", _HINT
        )
    return _decided(first)


def _uniform(evidence: Evidence, scale: float, offset: float, rung: str, reason: str) -> Claim:
    count = len(evidence.bands)
    return Claim(rung, reason, (scale,) * count, (offset,) * count)


def _decided(claim: Claim) -> Radiometry:
    return Radiometry(claim.scales, claim.offsets, claim.rung, claim.reason)


def _by_option(choice: str, evidence: Evidence) -> Radiometry | None:
    if choice == "auto":
        return None
    scale, offset, formula = {
        "reflectance": (1.0, 0.0, "the numbers are reflectance"),
        "dn": (DN_SCALE, 0.0, "0.0001 x DN"),
        "dn-1000": (DN_SCALE, DN_OFFSET, "0.0001 x (DN - 1000)"),
    }[choice]
    return _decided(_uniform(evidence, scale, offset, "option", f"{formula}, as --radiometry {choice} says"))


def _by_statement(evidence: Evidence) -> Claim | None:
    """Metadata speak of the whole numbers that a product is made of: floats were computed from them."""
    if evidence.stated is None or any(dtype.startswith("float") for dtype in evidence.dtypes):
        return None
    return evidence.stated


def _by_tags(evidence: Evidence) -> Claim | None:
    if not evidence.has_tags:
        return None
    tags = list(zip(evidence.scales, evidence.offsets, strict=True))
    for band, (scale, offset) in zip(evidence.bands, tags, strict=True):
        if (scale, offset) == (1.0, 0.0) or scale == 0 or not np.isfinite((scale, offset)).all():
            raise RadiometryError(
                f"{evidence.path}: the scale and offset tags make no sense together: band {band} has"
                f" {scale:g} and {offset:g}, all have {', '.join(f'{s:g} and {o:g}' for s, o in set(tags))}",
                _HINT,
            )
    stated = "; ".join(f"{scale:g} x number {offset:+g}" for scale, offset in dict.fromkeys(tags))
    reason = f"{stated}, as the scale and offset tags of the bands say"
    return Claim("tags", reason, evidence.scales, evidence.offsets)


def _by_baseline(evidence: Evidence) -> Claim | None:
    """Sentinel-2 product names hold the processing baseline; the innermost folder or file speaks first.

    Products hold whole numbers: floats in a folder of that name are something that was computed from one.
    """
    if any(dtype.startswith("float") for dtype in evidence.dtypes):
        return None
    for part in reversed(evidence.path.absolute().parts):
        found = _PRODUCT.match(part)
        if found is None or int(found[1]) == _LOCAL_BASELINE:
            continue
        baseline = f"{found[1][:2]}.{found[1][2:]}"
        if int(found[1]) >= _FIRST_BASELINE_WITH_OFFSET:
            reason = f"0.0001 x (DN - 1000), as processing baseline {baseline} in the name {part} says"
            return _uniform(evidence, DN_SCALE, DN_OFFSET, "baseline", reason)
        reason = f"0.0001 x DN, as processing baseline {baseline} in the name {part} says"
        return _uniform(evidence, DN_SCALE, 0.0, "baseline", reason)
    return None


def _by_float_range(evidence: Evidence, sample: npt.NDArray[Any]) -> Radiometry | None:
    if not all(dtype.startswith("float") for dtype in evidence.dtypes):
        return None
    # Exact zeros are often untagged fill: they say nothing about the unit.
    numbers = sample[sample != 0]
    if numbers.size == 0:
        return None
    low, high = (float(value) for value in np.quantile(numbers, (0.001, 0.999)))
    if low < _MIN_REFLECTANCE or high > _MAX_REFLECTANCE:
        raise RadiometryError(
            f"{evidence.path}: float numbers from {low:g} to {high:g} (0.1 % and 99.9 % of a sample) are no"
            " reflectance, and nothing says what they mean",
            f"{_HINT}; or, if they are fill, name it: --nodata NUMBER",
        )
    reason = f"the numbers are reflectance: floats, 99.9 % of a sample at or below {high:.3g}"
    return _decided(_uniform(evidence, 1.0, 0.0, "float", reason))


def _doubts(decided: Radiometry, evidence: Evidence, sample: npt.NDArray[Any]) -> tuple[str, ...]:
    """What a sample of the numbers says against a decision; it never decides."""
    overridden = _overridden(decided, evidence)
    if sample.shape[1] == 0:
        return (
            *overridden,
            "no valid pixel in a sample of the scene: is it empty, or is --nodata a number of its data?",
        )
    doubts = [*overridden, *_offset_doubts(decided, evidence, sample)]
    empty = float((sample == 0).all(axis=0).mean())
    if empty > _UNTAGGED_FILL:
        doubts.append(f"{empty:.0%} of a sample are 0 in all bands: if that is fill, say so with --nodata 0")
    middle = decided.apply(np.median(sample, axis=1).astype(np.float32)[:, None, None])
    high = decided.apply(np.quantile(sample, 0.999, axis=1).astype(np.float32)[:, None, None])
    if float(middle.min()) > 1.5 or float(middle.max()) < -0.1 or float(high.max()) < 0.01:
        doubts.append(
            f"reflectances look wrong: the middle of the bands lies at {float(middle.min()):.3g} to"
            f" {float(middle.max()):.3g}, 99.9 % below {float(high.max()):.3g} ({decided.reason})"
        )
    if decided.rung == "option" and evidence.has_tags:
        doubts.append("the bands carry scale or offset tags; --radiometry overrides them")
    return tuple(doubts)


def _overridden(decided: Radiometry, evidence: Evidence) -> tuple[str, ...]:
    """What metadata or a product name say otherwise than the user; tags are told of in any case."""
    if decided.rung != "option":
        return ()
    chosen = Claim(decided.rung, decided.reason, decided.scale, decided.offset)
    claims = (_by_statement(evidence), _by_baseline(evidence))
    reason = next((claim.reason for claim in claims if claim is not None and not chosen.agrees(claim)), None)
    return () if reason is None else (f"--radiometry overrides what the scene says: {reason}",)


def _offset_doubts(decided: Radiometry, evidence: Evidence, sample: npt.NDArray[Any]) -> list[str]:
    """Doubts about the +1000 of Sentinel-2; hardly a scene has no band with pixels darker than 900 DN."""
    is_defined = (
        evidence.stated is not None and evidence.stated.rung == "product"
    )  # and no product of Sentinel-2 itself
    if is_defined or not np.allclose(decided.scale, DN_SCALE, rtol=1e-3):
        return []
    darkest = float(np.quantile(sample, 0.001, axis=1).min())
    if not any(decided.offset) and darkest >= _DARK_DN:
        text = f"no band goes below {darkest:.0f} DN: do the numbers carry the +1000 of Sentinel-2 baseline 04.00?"
        return [f"{text} If so use --radiometry dn-1000"]
    if "blue" in evidence.bands and np.allclose(decided.offset, DN_OFFSET, rtol=1e-3):
        blue = float(np.quantile(sample[evidence.bands.index("blue")], 0.01))
        if blue < _DARK_BLUE_DN:
            text = f"blue starts at {blue:.0f} DN: is the +1000 of Sentinel-2 baseline 04.00 gone already?"
            return [f"{text} If so use --radiometry dn"]
    return []
