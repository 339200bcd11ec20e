"""Make the environments of the peers.

    python benchmarks/peers/setup.py NAME|all ... [--venvs FOLDER] [--share SITE_PACKAGES]

Each peer gets a virtual environment: torch within the bounds that select its CPU wheel, what geoseg's loader of
networks needs, the peer itself without its dependencies, and those dependencies that its tiling uses. torchvision and
CUDA packages are refused, because they break a CPU build of torch. ``--share`` takes torch, numpy and rasterio from the
site-packages of an environment that has geoseg instead, which saves 1.4 GB for every peer.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

BASE = ("torch>=2.6,<2.14", "numpy>=2,<3", "rasterio>=1.4.4,<2", "affine>=3.0", "safetensors>=0.5", "pydantic>=2.10,<3",
        "tqdm")  # fmt: skip
REFUSED = ("torchvision", "nvidia-cu", "nvidia-nccl", "triton")


@dataclass(frozen=True, slots=True)
class Peer:
    """What is installed for a peer.

    Attributes:
        package: The peer with the version that was measured.
        needed: Packages that its tiling imports, with their dependencies.
        alone: Packages that it imports, without theirs.
    """

    package: str
    needed: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


PEERS = {
    "omnicloudmask": Peer(
        "omnicloudmask==1.8.1", ("gdown", "huggingface_hub", "platformdirs"), ("classcounter==0.2.1",)
    ),
    "terratorch": Peer("terratorch==1.2.13"),
    "torchgeo": Peer("torchgeo==0.8.1", ("geopandas", "einops", "matplotlib")),
    "toolbelt": Peer("pytorch-toolbelt==0.8.0", ("opencv-python-headless>=4.1",)),
    "geoai": Peer("geoai-py==0.40.1"),
    "geo-inference": Peer(
        "geo-inference==3.2.4",
        ("geopandas", "pyogrio", "rtree", "hydra-core", "omegaconf", "colorlog==6.7.0", "nvidia-ml-py", "requests",
         "scipy", "rioxarray", "xarray", "pystac>=1.10", "dask>=2024.6.2", "pyyaml", "shapely", "pyproj"),
        ("ttach==0.0.3",),
    ),
}  # fmt: skip


def main() -> None:
    """Make what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", choices=[*PEERS, "all"])
    here = Path(tempfile.gettempdir()) / "peers"
    parser.add_argument("--venvs", type=Path, default=here, help="default: %(default)s")
    parser.add_argument("--share", type=Path, help="site-packages to take the large packages from")
    options = parser.parse_args()
    for name in PEERS if "all" in options.names else options.names:
        make(options.venvs / name, PEERS[name], options.share)
        print(options.venvs / name)


def make(folder: Path, peer: Peer, share: Path | None) -> None:
    """Make one environment, or bring it up to date."""
    venv.create(folder, with_pip=True, symlinks=os.name == "posix")
    if share:
        (site_packages(folder) / "shared.pth").write_text(f"{share.resolve()}\n", encoding="utf-8")
    else:
        install(folder, *BASE)
    install(folder, "--no-deps", peer.package, *peer.alone)
    if peer.needed:
        install(folder, *peer.needed)
    refuse_wrong(folder)


def site_packages(folder: Path) -> Path:
    """Where an environment's packages lie."""
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def install(folder: Path, *what: str) -> None:
    """Call the environment's pip."""
    subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *what], check=True)


def refuse_wrong(folder: Path) -> None:
    """End with a message where a package came along that breaks the CPU build of torch."""
    found = [one.name.lower() for one in importlib.metadata.distributions(path=[str(site_packages(folder))])]
    if wrong := wrong_packages(found):
        raise SystemExit(f"{folder}: {', '.join(wrong)} came along and would break torch: delete the folder")


def wrong_packages(names: list[str]) -> list[str]:
    """Those of the installed packages that must not be there."""
    return sorted(name for name in names if name.replace("_", "-").startswith(REFUSED))


if __name__ == "__main__":
    main()
