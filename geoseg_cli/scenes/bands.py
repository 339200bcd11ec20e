"""Which band of a file is which: by name, never by number.

Names are those of ``data/sensors.toml``: a sensor's own (``B04``, ``SR_B4``) or common ones (``red``). A
sensor's own name may mean different bands: ``B4`` is red for Landsat 8 and near infrared for Landsat 5. So
every sensor that has all the names is a candidate, and the match holds only if the candidates agree on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.bundle import InputSpec
from geoseg_cli.catalog import Sensor, common_names, sensors
from geoseg_cli.errors import BandError
from geoseg_cli.printable import counted

if TYPE_CHECKING:
    from geoseg_cli.scenes import SceneOptions

SKIP = "-"
"""Stands in ``--bands`` for a band that is not used."""


@dataclass(frozen=True, slots=True)
class BandMatch:
    """Which band of a file is which wanted band.

    Attributes:
        wanted: Common names in the network's order.
        numbers: Band number in the file, from 1, of each wanted band; None where the file lacks it.
        file_names: What each band of the file is called, ``""`` where it has no name.
        filled: Common names of bands that the file lacks, with the reflectance that stands for them everywhere.
    """

    wanted: tuple[str, ...]
    numbers: tuple[int | None, ...]
    file_names: tuple[str, ...]
    filled: tuple[tuple[str, float], ...] = ()

    @property
    def present(self) -> tuple[bool, ...]:
        """One flag per wanted band: whether the file has it, or it is filled."""
        filled = dict(self.filled)
        pairs = zip(self.wanted, self.numbers, strict=True)
        return tuple(number is not None or name in filled for name, number in pairs)

    def with_filled(self, reflectance: Array, arrays: Arrays = NUMPY) -> Array:
        """Put the filled bands between those of the file: (..., P, H, W) to (..., Q, H, W)."""
        if not self.filled:
            return reflectance
        filled, held = dict(self.filled), iter(range(reflectance.shape[-3]))
        shape = (*reflectance.shape[:-3], *reflectance.shape[-2:])
        planes = [
            arrays.full(shape, filled[name], "float32") if number is None else reflectance[..., next(held), :, :]
            for name, number in zip(self.wanted, self.numbers, strict=True)
            if number is not None or name in filled
        ]
        return arrays.module.stack(planes, -3)

    @property
    def held_numbers(self) -> tuple[int, ...]:
        """Band numbers, from 1, of the present bands in the order of ``wanted``."""
        return tuple(number for number in self.numbers if number is not None)

    @property
    def held_names(self) -> tuple[str, ...]:
        """Common names of the present bands in the order of ``wanted``."""
        pairs = zip(self.wanted, self.numbers, strict=True)
        return tuple(name for name, number in pairs if number is not None)

    def __str__(self) -> str:
        """A table: wanted band, band of the file that answers to it."""
        width = max(len("wanted"), *(len(name) for name in self.wanted))
        rows = [f"  {'wanted':{width}}  found"]
        filled = dict(self.filled)
        for name, number in zip(self.wanted, self.numbers, strict=True):
            found = "-" if number is None else _numbered(number, self.file_names)
            if name in filled:
                found = f"{filled[name]:g} everywhere (--fill)"
            rows.append(f"  {name:{width}}  {found}")
        return "\n".join(rows)


def match_bands(
    spec: InputSpec,
    descriptions: Sequence[str | None],
    override: tuple[str, ...] | None = None,
    where: str = "scene",
    sensor: str | None = None,
) -> BandMatch:
    """Find the bands that a network wants among the bands of a file.

    Args:
        spec: What the network wants.
        descriptions: Band names that the file states, in file order; None where it states none.
        override: Band names in file order as the user gives them, ``-`` for a band to skip; they replace
            ``descriptions``.
        where: What the error messages call the file.
        sensor: Name of the sensor that the names belong to, where something says it: HLS L30 and S30 give the same
            name to different bands. None takes every sensor that has them all.

    Returns:
        The match; wanted bands that are optional may be absent.

    Raises:
        BandError: Names are missing, doubled or ambiguous, or a required band is absent.
    """
    names = _given(override, len(descriptions), where) if override is not None else _stated(descriptions)
    _refuse_doubles(names, where)
    if not any(names):
        raise BandError(
            f"{where}: no band has a name that is known\n{_nothing(spec, descriptions)}",
            _say_bands(spec, len(names)),
        )
    return _agreed(spec, names, where, sensor)


def drop_bands(match: BandMatch, spec: InputSpec, names: Sequence[str], where: str = "scene") -> BandMatch:
    """The match as if the file lacked some bands.

    Args:
        match: What the file has.
        spec: What the network wants.
        names: Common names of the bands to leave out; those that the file lacks are no trouble.
        where: What the error messages call the file.

    Raises:
        BandError: The network has no such band, needs it, or would be left with none.
    """
    unknown = [name for name in names if name not in spec.bands]
    needed = [name for name in names if name in spec.required]
    if unknown or needed:
        trouble = f"the model has no {_counted(unknown)}" if unknown else f"the model needs {_counted(needed)}"
        raise BandError(f"--drop-bands: {trouble}", f"it can do without {', '.join(spec.optional) or 'none'}")
    if doubled := [name for name, _ in match.filled if name in names]:
        raise BandError(f"--drop-bands and --fill both name {_counted(doubled)}", "give one of them")
    kept = tuple(None if band in names else number for band, number in zip(match.wanted, match.numbers, strict=True))
    if not any(number is not None for number in kept):
        raise BandError(f"{where}: no band is left\n{match}", "leave out fewer bands")
    return replace(match, numbers=kept)


def match_filled(
    spec: InputSpec, descriptions: Sequence[str | None], options: SceneOptions, where: str, sensor: str | None
) -> BandMatch:
    """The match of a file that lacks bands for which the user gives a reflectance (``--fill``).

    Raises:
        BandError: As :func:`match_bands`; or a band to fill is unknown, or the file has it.
    """
    filled: dict[str, float] = {}
    for name, value in options.fill:
        band = _filled_name(name, spec, descriptions, sensor)
        if band in filled:
            raise BandError(f"--fill names {band} twice", "give it once")
        filled[band] = value
    looser = replace(spec, optional=tuple(band for band in spec.bands if band in (*spec.optional, *filled)))
    match = match_bands(looser, descriptions, options.bands, where, sensor)
    if held := [name for name in filled if name in match.held_names]:
        raise BandError(f"{where}: --fill names {_counted(held)}, which the file has\n{match}", "leave it out")
    return replace(match, filled=tuple(filled.items()))


def _filled_name(name: str, spec: InputSpec, descriptions: Sequence[str | None], sensor: str | None) -> str:
    """The network's name of a band to fill, which may be given as the sensor's own."""
    if name in spec.bands:
        return name
    able = fitting_sensors(_stated(descriptions)) if sensor is None else (sensors()[sensor],)
    found = {
        common for one in able if (band := one.find(name)) is not None for common in band.common if common in spec.bands
    }
    if len(found) != 1:
        raise BandError(
            f"--fill {name}: {'ambiguous' if found else 'the model has no such band'}",
            f"use one of its names: {', '.join(spec.bands)}",
        )
    return found.pop()


def named_by_sensor(sensor: str, descriptions: Sequence[str | None], where: str) -> Sequence[str | None]:
    """Names of a file's bands when the user says which sensor they are of (``--sensor``).

    A file that names its bands keeps its names. One that names none must have as many bands as the sensor;
    Sentinel-2 L2A has all but the cirrus band.

    Raises:
        BandError: There is no such sensor, or the number of bands is another.
    """
    if sensor not in sensors():
        raise BandError(f"--sensor {sensor} is unknown", f"use one of {', '.join(sensors())}")
    if any(_stated(descriptions)):
        return descriptions
    names = [band.name for band in sensors()[sensor].bands]
    without_cirrus = [band.name for band in sensors()[sensor].bands if "cirrus" not in band.common]
    for order in (names, without_cirrus):
        if len(order) == len(descriptions):
            return order
    raise BandError(
        f"{where} has {counted(len(descriptions), 'band')} without names, {sensors()[sensor].title} has {len(names)}:"
        f" {', '.join(names)}",
        "name them in file order: --bands NAME,NAME,...",
    )


@cache
def known_names() -> frozenset[str]:
    """Every band name that some sensor knows, common or its own, in lower case."""
    own = (name for s in sensors().values() for band in s.bands for name in (band.name, *band.aliases))
    return frozenset(name.casefold() for name in (*own, *common_names()))


@cache
def _common() -> frozenset[str]:
    return frozenset(name.casefold() for name in common_names())


def _stated(descriptions: Sequence[str | None]) -> tuple[str, ...]:
    """Names that the file states, ``""`` for those that mean nothing to us."""
    names = ((text or "").strip() for text in descriptions)
    return tuple(name if name.casefold() in known_names() else "" for name in names)


def _given(override: tuple[str, ...], count: int, where: str) -> tuple[str, ...]:
    """Names that the user gives, ``""`` for skipped bands."""
    names = tuple(name.strip() for name in override)
    if len(names) != count:
        raise BandError(
            f"{where}: --bands names {counted(len(names), 'band')} but the file has {count}",
            f"give {counted(count, 'name')} in the order of the file's bands, {SKIP} for a band to skip",
        )
    unknown = [name for name in names if name != SKIP and name.casefold() not in known_names()]
    if unknown:
        raise BandError(
            f"--bands: no sensor has a band called {', '.join(map(repr, unknown))}",
            f"known common names: {', '.join(common_names())}; or a sensor's own such as B04, SR_B4",
        )
    return tuple("" if name == SKIP else name for name in names)


def _refuse_doubles(names: tuple[str, ...], where: str) -> None:
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if name and name.casefold() in first:
            raise BandError(
                f"{where}: bands {first[name.casefold()]} and {number} are both called {name}",
                f"say which one to use: --bands, with {SKIP} for the other",
            )
        first[name.casefold()] = number


def _agreed(spec: InputSpec, names: tuple[str, ...], where: str, known: str | None) -> BandMatch:
    """The match that all candidate sensors agree on, complete."""
    if known is None:
        candidates = fitting_sensors(names)
    else:
        candidates = (sensors()[known],) if fits(sensors()[known], names) else ()
    if not candidates:
        raise BandError(
            f"{where}: no sensor has these bands, each once\n{_listing(names)}", _say_bands(spec, len(names))
        )
    matches = {sensor.title: _match(spec, names, sensor) for sensor in candidates}
    first, *others = dict.fromkeys(matches.values())
    # Told first: where every reading lacks a band, choosing one does not help.
    missing = _missing(spec, first).intersection(*(_missing(spec, other) for other in others))
    if not missing and others:
        raise BandError(
            f"{where}: the band names are ambiguous\n{_listing(names)}\n{_readings(matches)}",
            "say which bands they are: " + _choices(matches),
        )
    if missing or not any(first.present):
        ordered = [band for band in spec.bands if band in missing or not missing]
        raise BandError(
            f"{where}: missing {_counted(ordered)}\n{first}\n{_listing(names)}", _say_bands(spec, len(names))
        )
    return first


def _missing(spec: InputSpec, match: BandMatch) -> set[str]:
    """Required bands that the file lacks."""
    return set(spec.required) - set(match.held_names)


def fitting_sensors(names: Sequence[str]) -> tuple[Sensor, ...]:
    """Sensors that have all these bands, each once; common names fit every sensor, ``""`` is no name."""
    able = (sensor for sensor in sensors().values() if not sensor.only_when_named)
    return tuple(sensor for sensor in able if fits(sensor, tuple(names)))


def fits(sensor: Sensor, names: tuple[str, ...]) -> bool:
    """Whether each name is a band of this sensor or a common name, and no band is named twice."""
    bands = [(name, sensor.find(name)) for name in names if name]
    if any(band is None and name.casefold() not in _common() for name, band in bands):
        return False
    own = [band.name for _, band in bands if band is not None]
    return len(set(own)) == len(own)


def _match(spec: InputSpec, names: tuple[str, ...], sensor: Sensor) -> BandMatch:
    return BandMatch(spec.bands, tuple(_number(band, names, sensor) for band in spec.bands), names)


def _number(wanted: str, names: tuple[str, ...], sensor: Sensor) -> int | None:
    """Number, from 1, of the band called ``wanted`` or, for this sensor, the one that may stand for it."""
    folded = [name.casefold() for name in names]
    if wanted.casefold() in folded:
        return folded.index(wanted.casefold()) + 1
    band = sensor.find(wanted)
    if band is None:
        return None
    return next((i for i, name in enumerate(names, start=1) if name and band.answers_to(name)), None)


def _numbered(number: int, names: tuple[str, ...]) -> str:
    return f"band {number} ({names[number - 1]})"


def _listing(names: Sequence[str | None]) -> str:
    shown = [f"{number} {_printable(name) or SKIP}" for number, name in enumerate(names, start=1)]
    rest = f", ... {len(names)} in all" if len(names) > 24 else ""
    return f"  bands of the file: {', '.join(shown[:24])}{rest}"


def _printable(name: str | None) -> str:
    """A name out of a file, safe to show on a terminal."""
    text = (name or "").strip()[:40]
    return text if text.isprintable() else ascii(text)


def _nothing(spec: InputSpec, descriptions: Sequence[str | None]) -> str:
    return f"{BandMatch(spec.bands, (None,) * len(spec.bands), ())}\n{_listing(descriptions)}"


def _readings(matches: dict[str, BandMatch]) -> str:
    """What each candidate sensor makes of the names."""
    rows = []
    for title, match in matches.items():
        pairs = zip(match.wanted, match.numbers, strict=True)
        rows.append(f"  {title}: " + ", ".join(f"{n} is {band}" for band, n in pairs if n is not None))
    return "\n".join(rows)


def _choices(matches: dict[str, BandMatch]) -> str:
    """One ``--bands`` option for each reading."""
    readings: dict[str, list[str]] = {}
    for title, match in matches.items():
        by_number = {n: band for band, n in zip(match.wanted, match.numbers, strict=True) if n is not None}
        option = ",".join(by_number.get(n, SKIP) for n in range(1, len(match.file_names) + 1))
        readings.setdefault(f"--bands {option}", []).append(title)
    return "; or ".join(f"{option} ({', '.join(titles)})" for option, titles in readings.items())


def _counted(bands: Sequence[str]) -> str:
    return f"band{'s' * (len(bands) > 1)} {', '.join(bands)}"


def _say_bands(spec: InputSpec, count: int) -> str:
    needed = spec.required or spec.bands[:1]
    if count < len(needed):
        return (
            f"the model needs {_counted(needed)} in one file; stack single-band files first:"
            " gdal_merge.py -separate -o scene.tif B02.tif B03.tif ..., then name its bands with --bands"
        )
    example = ",".join((*spec.bands, *(SKIP for _ in range(count)))[:count])
    return (
        f"name the file's bands in their order, {SKIP} to skip one, such as --bands {example};"
        f" the model needs {_counted(needed)}; or take one reflectance everywhere for a band that is not there, at your"
        f" own risk: --fill {needed[0]}=VALUE"
    )
