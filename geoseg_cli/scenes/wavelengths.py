"""Which band lies at a wavelength, where no name tells: the one of the sensors' table, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from geoseg_cli.catalog import Sensor, sensors


def named_by_wavelength(
    names: Sequence[str], wavelengths_nm: Sequence[float | None], sensor: str | None = None
) -> tuple[str, ...]:
    """Name bands by their centre wavelengths, where nothing else does.

    Args:
        names: What the bands are called, ``""`` for those without a name.
        wavelengths_nm: Their centres; None where nothing is stated.
        sensor: Whose bands they are, as in ``data/sensors.toml``; None where nothing tells.

    Returns:
        The names, with common ones in the place of ``""``. A band stays without a name where its wavelength is that of
        no band or of several, or is claimed by another band too: of a hyperspectral scene no band is *the* red one.
    """
    able = list(sensors().values()) if sensor is None else [sensors()[sensor]]
    told = [
        "" if name or wavelength is None else _common_at(wavelength, able)
        for name, wavelength in zip(names, wavelengths_nm, strict=True)
    ]
    claims, taken = Counter(told), [name for name in names if name]

    def is_free(name: str) -> bool:
        return claims[name] == 1 and not any(are_one_band(name, other, able) for other in taken)

    return tuple(
        name or (common if common and is_free(common) else "") for name, common in zip(names, told, strict=True)
    )


def _common_at(wavelength_nm: float, able: Sequence[Sensor]) -> str:
    """The common name on which all sensors with a band there agree; ``""`` for none."""
    near = [bands for sensor in able if (bands := sensor.near(wavelength_nm))]
    if not near or any(len(bands) > 1 for bands in near):
        return ""
    shared = set[str].intersection(*(set(bands[0].common) for bands in near))
    return next((name for name in near[0][0].common if name in shared), "")


def are_one_band(first: str, second: str, able: Sequence[Sensor]) -> bool:
    """Whether two names mean the same band of some sensor."""
    pairs = ((sensor.find(first), sensor.find(second)) for sensor in able)
    return any(one is not None and one is other for one, other in pairs)
