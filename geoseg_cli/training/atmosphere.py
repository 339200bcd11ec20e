"""Clear air between ground, clouds and satellite: what it scatters, absorbs and leaves in shadows.

Band vectors are (C,) float32, one number per channel of `spectra.CHANNELS`; heights are metres above ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from geoseg_cli.training.fields import FloatArray
from geoseg_cli.training.spectra import WAVELENGTH_NM, spread_nearest

# Scale heights of molecules, aerosol and water vapour (standard atmosphere; boundary-layer aerosol).
_AIR_SCALE_M: Final = 8000.0
_AEROSOL_SCALE_M: Final = 2000.0
_VAPOUR_SCALE_M: Final = 2000.0

# Vertical two-way transmission of ozone, oxygen and carbon dioxide for a sun at zenith (order of 6S tables).
_GASES: Final = spread_nearest([0.997, 0.985, 0.945, 0.965, 0.975, 0.965, 0.985, 0.985, 1.0, 1.0, 1.0, 0.98, 0.97])
# Water vapour: transmission exp(-weak * sqrt(path)) for a path in cm of water; B09 sits on the 940 nm band.
_VAPOUR_WEAK: Final = spread_nearest([0, 0, 0.001, 0.004, 0.015, 0.02, 0.006, 0.03, 0.003, 0.75, 0, 0.006, 0.02])
# B10 sits on the saturated 1375 nm band: exp(-6 * path) hides the ground and passes what is above 7 km.
_VAPOUR_STRONG: Final = spread_nearest([0.0] * 10 + [6.0, 0, 0])


def rayleigh_optical_depth() -> FloatArray:
    """Vertical optical depth of air at sea level per channel, (C,) float32; Hansen and Travis 1974, eq. 2.30."""
    inverse = (WAVELENGTH_NM / 1000.0) ** -2.0
    return (0.008569 * inverse**2 * (1 + 0.0113 * inverse + 0.00013 * inverse**2)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Layer:
    """Effect of the air between two heights on light that passes it down and up.

    Attributes:
        path: (C,) reflectance that the air itself adds.
        transmission: (C,) two-way, 0..1.
    """

    path: FloatArray
    transmission: FloatArray


@dataclass(frozen=True, slots=True)
class Atmosphere:
    """Cloudless air over one scene.

    Attributes:
        sun_zenith_rad: 0..1.25.
        aerosol_depth: optical depth at 550 nm, 0.02 clean, 0.5 hazy, 1 smoke or a dust storm.
        angstrom: fall of the aerosol's depth with wavelength, about 1.3 for continental haze, 0.3 for dust.
        vapour_cm: column of water vapour, 0.1 polar winter to 5 tropics.
        ground_m: elevation; less air and vapour above mountains.
    """

    sun_zenith_rad: float
    aerosol_depth: float
    angstrom: float
    vapour_cm: float
    ground_m: float = 0.0

    def aerosol(self) -> FloatArray:
        """Aerosol optical depth per channel."""
        return (self.aerosol_depth * (WAVELENGTH_NM / 550.0) ** -self.angstrom).astype(np.float32)

    def layer(self, bottom_m: float, top_m: float) -> Layer:
        """The air between two heights above the ground.

        Single scattering plus first-order coupling: path = depth * phase / (4 cos(sun) cos(view)), seen from the
        zenith. Scattered light that still goes forward counts as transmitted: about half of what molecules and 84 %
        of what aerosol scatters (Tanre et al. 1979).
        """
        sun = float(np.cos(self.sun_zenith_rad))
        air = _share(bottom_m, top_m, _AIR_SCALE_M) * np.exp(-self.ground_m / _AIR_SCALE_M)
        molecules = rayleigh_optical_depth() * np.float32(air)
        particles = self.aerosol() * np.float32(_share(bottom_m, top_m, _AEROSOL_SCALE_M))
        # Backward phase of continental aerosol is 0.2 to 0.3 between 100 and 150 degrees of scattering.
        scattered = molecules * np.float32(0.75 * (1 + sun**2)) + particles * np.float32(0.9 * 0.25)
        # Light that is scattered more than once adds about half the depth of the layer.
        path = scattered / np.float32(4 * sun) * (1 + np.float32(0.5) * (molecules + particles))
        slant = np.float32(1 / sun + 1)
        transmission = np.exp(-(0.52 * molecules + 0.17 * particles) * slant)
        gases = _GASES ** np.float32(slant / 2) if np.isinf(top_m) else np.float32(1)
        vapour = self._vapour_transmission(bottom_m) / self._vapour_transmission(top_m)
        # The light that the layer itself scatters meets about half of its vapour.
        path = path * np.sqrt(vapour)
        return Layer((path * gases).astype(np.float32), (transmission * vapour * gases).astype(np.float32))

    def to_surface(self, reflectance: FloatArray, channels: Sequence[int]) -> FloatArray:
        """Surface reflectance of flat ground from that at the top of the atmosphere, both (B, H, W) float32.

        Args:
            reflectance: At the top of the atmosphere.
            channels: Channel of each of the B bands.
        """
        path, passed, albedo = self._slab(channels)
        above = (reflectance - path) / passed
        return np.asarray(above / (1 + albedo * above), np.float32)

    def to_top(self, reflectance: FloatArray, channels: Sequence[int]) -> FloatArray:
        """The opposite of `to_surface`: reflectance at the top of the atmosphere of flat ground, (B, H, W) float32."""
        path, passed, albedo = self._slab(channels)
        return np.asarray(path + passed * reflectance / (1 - albedo * reflectance), np.float32)

    def _slab(self, channels: Sequence[int]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What all of the air adds, passes and sends back down, (B, 1, 1) each."""
        slab, albedo = self.layer(0.0, np.inf), self.spherical_albedo()
        passed = np.maximum(slab.transmission, np.float32(0.05))
        return tuple(one[list(channels), None, None] for one in (slab.path, passed, albedo))  # type: ignore[return-value]

    def _vapour_transmission(self, bottom_m: float) -> FloatArray:
        """Two-way transmission of the vapour above a height."""
        column = self.vapour_cm * np.exp(-(bottom_m + self.ground_m) / _VAPOUR_SCALE_M)
        path = column * (1 / np.cos(self.sun_zenith_rad) + 1)
        depth = _VAPOUR_WEAK * np.sqrt(path) + _VAPOUR_STRONG * np.minimum(path, 4.0)
        return np.asarray(np.exp(-depth), np.float32)

    def sky_share(self) -> FloatArray:
        """Share of diffuse sky light in what reaches open ground, (C,) in 0..1: high in blue, low in SWIR."""
        direct = 0.48 * rayleigh_optical_depth() + 0.83 * self.aerosol()
        return np.asarray(1 - np.exp(-direct / np.cos(self.sun_zenith_rad)), np.float32)

    def spherical_albedo(self) -> FloatArray:
        """Share of the light from the ground that the air sends back down, (C,): about 0.9 depth for molecules."""
        return np.asarray(0.83 * rayleigh_optical_depth() + 0.14 * self.aerosol(), np.float32)


def _share(bottom_m: float, top_m: float, scale_m: float) -> float:
    """Share of an exponential column between two heights."""
    return float(np.exp(-bottom_m / scale_m) - np.exp(-top_m / scale_m))
