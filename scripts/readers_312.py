"""The same maps under Python 3.12 and rasterio 1.5: made there and here, compared byte by byte, and read there.

    python scripts/readers_312.py [--python PYTHON3.12] [--read FOLDER]

An interpreter is looked for as python3.12 on the path and among those of pyenv. An environment of its own gets
rasterio 1.5 and what else the ONNX path needs, without torch. With --read only the rasters in FOLDER are read there,
and compared with the arrays of the same names in its expected.npz.

Exit codes: 0 all is equal, 1 it is not, 3 there is no interpreter, or the packages cannot be installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "sample_scenes" / "l1c_13_bands.tif"
NOT_KNOWN = 3
MAPS = ("map.tif", "probabilities.tif", "confidence.tif", "entropy.tif")

READ = """
import sys, numpy, rasterio, tifffile
from pathlib import Path
folder, expected = Path(sys.argv[1]), numpy.load(Path(sys.argv[1]) / "expected.npz")
assert tuple(map(int, rasterio.__version__.split(".")[:2])) >= (1, 5), rasterio.__version__
for name in expected.files:
    with rasterio.open(folder / name) as file:
        numpy.testing.assert_array_equal(file.read(), expected[name], name)
    with tifffile.TiffFile(folder / name) as file:
        pixels = file.series[0].levels[0].asarray()
    if pixels.ndim == 3 and pixels.shape != expected[name].shape:
        pixels = numpy.moveaxis(pixels, 2, 0)  # bands beside each other in every pixel
    numpy.testing.assert_array_equal(pixels.reshape(expected[name].shape), expected[name], name)
print(f"{len(expected.files)} rasters read equal by rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}, "
      f"and tifffile {tifffile.__version__}, Python {sys.version.split()[0]}")
"""


def main() -> int:
    """Make the environment, then the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=None)
    parser.add_argument("--read", type=Path, default=None, metavar="FOLDER")
    given = parser.parse_args()
    found = given.python or find_python()
    if found is None:
        print("no Python 3.12 at hand: give one with --python")
        return NOT_KNOWN
    with tempfile.TemporaryDirectory() as scratch:
        python = environment(found, Path(scratch) / "environment")
        if python is None:
            print("the packages cannot be installed for Python 3.12")
            return NOT_KNOWN
        if given.read is not None:
            return subprocess.run([python, "-c", READ, given.read]).returncode
        return compare(python, Path(scratch))


def find_python() -> Path | None:
    """An interpreter that says it is 3.12, or None."""
    named = shutil.which("python3.12")
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for path in [*([Path(named)] if named else []), *sorted(root.glob("3.12*/bin/python"))]:
        done = subprocess.run([path, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if done.stdout.strip() == "(3, 12)":  # pyenv's shims exist for versions that are not chosen
            return path
    return None


def environment(python: Path, folder: Path) -> Path | None:
    """A fresh environment with all run-time dependencies but torch; None where pip cannot make it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [text for text in project["dependencies"] if not text.startswith("torch")]
    own = folder / "bin" / "python"
    steps = (
        [python, "-m", "venv", folder],
        [own, "-m", "pip", "install", "--quiet", "rasterio>=1.5", "tifffile", *wanted],
    )
    is_made = all(subprocess.run(step, stderr=subprocess.DEVNULL).returncode == 0 for step in steps)
    return own if is_made else None


def compare(python: Path, scratch: Path) -> int:
    """Run the same commands with this interpreter and with the other one; 0 where all files are the same."""
    differing = []
    for command in ("classify", "cloudmask"):
        folders = [scratch / command / name for name in ("here", "there")]
        for folder, interpreter in zip(folders, (sys.executable, python), strict=True):
            make_maps(command, folder, interpreter)
        names = sorted(path.name for path in folders[0].iterdir())
        for name in names:
            digests = {hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in folders}
            differing += [f"{command} {name}"] if len(digests) > 1 else []
        print(f"{command}: {len(names)} files")
    print(f"other bytes: {', '.join(differing)}" if differing else "the same bytes under both")
    return 1 if differing else 0


def make_maps(command: str, folder: Path, python: Path | str) -> None:
    """All kinds of rasters of a sample scene."""
    folder.mkdir(parents=True)
    labels, *others = MAPS
    kinds = [part for name in others for part in (f"--{Path(name).stem}", name)]
    arguments = [python, "-m", "geoseg_cli", command, SCENE, "-o", labels, "--engine", "onnx", "-q", *kinds]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1704067200"}
    subprocess.run(arguments, check=True, cwd=folder, env=surroundings, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
