"""From the shell to the first tile: how long a command runs until the engine has answered for the first time.

    python benchmarks/first_tile.py [--side 2752] [--rounds 6] [--tree FOLDER ...] [--engine onnx]

A round runs ``geoseg classify`` and ``geoseg cloudmask`` with their defaults on a scene of 13 bands, each as a process
of its own, once for every checkout that is given (this one if none), one after the other. Times count from before the
process is started; a round that is not counted warms the caches of files, of compiled graphs and of Python's bytecode,
which an installed geoseg has from the start. Other work on the machine shows: look at the least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from geoseg_cli.bench.synthetic import write_synthetic

HERE = Path(__file__).resolve().parents[1]
COMMANDS = ("classify", "cloudmask")
ENGINES = {
    "openvino": ("openvino_engine", "OpenVinoEngine"),
    "onnx": ("onnx_engine", "OnnxEngine"),
    "torch": ("torch_engine", "TorchEngine"),
}
# Notes the time of the engine's first answer. Geoseg itself imports the module: what is imported when counts.
WATCH = """
import importlib.abc, importlib.machinery, sys, time
MODULE, CLASS, NOTE = sys.argv[1:4]

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            watch(getattr(module, CLASS))
        spec.loader.exec_module = exec_module
        return spec

def watch(engine):
    run = engine.run
    def first(self, pixels):
        answer = run(self, pixels)
        with open(NOTE, "x") as note:
            note.write(repr(time.time()))
        engine.run = run
        return answer
    engine.run = first

sys.meta_path.insert(0, Finder())
from geoseg_cli.cli import main
main(sys.argv[4:], "geoseg")
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2752, help="rows and columns of the scene")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tree", type=Path, action="append", help="checkout to measure; may be given several times")
    default = "openvino" if find_spec("openvino") else "onnx"
    parser.add_argument("--engine", choices=tuple(ENGINES), default=default, help=f"{default} if not given, here")
    arguments = parser.parse_args()
    trees = [tree.resolve() for tree in arguments.tree or [HERE]]
    with tempfile.TemporaryDirectory() as folder:
        scene = make_scene(Path(folder), arguments.side)
        cases = list(product(COMMANDS, trees))
        seconds: dict[tuple[str, Path], list[float]] = {case: [] for case in cases}
        for number in range(arguments.rounds + 1):
            for case in cases:
                taken = first_tile_s(*case, scene, arguments.engine, Path(folder))
                if number:
                    seconds[case].append(taken)
    print(f"| command | checkout | median s | least | most |\n|---|---|{'---:|' * 3}")
    for (command, tree), found in seconds.items():
        print(f"| {command} | {tree.name} | {statistics.median(found):.2f} | {min(found):.2f} | {max(found):.2f} |")
    return 0


def make_scene(folder: Path, side: int) -> Path:
    """A synthesised scene of 13 bands, as ``geoseg bench --synthetic`` makes it."""
    scene = folder / "scene.tif"
    write_synthetic(scene, side, side)
    return scene


def first_tile_s(command: str, tree: Path, scene: Path, engine: str, folder: Path) -> float:
    """Seconds from before the start of a command until the engine has answered once."""
    note = folder / "answered"
    note.unlink(missing_ok=True)
    module, name = ENGINES[engine]
    options = ["--engine", engine, "--no-resume", "--overwrite", "--quiet", "-o", str(folder / "map.tif")]
    arguments = [f"geoseg_cli.engines.{module}", name, str(note), command, str(scene), *options]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.time()
    subprocess.run(
        [sys.executable, "-P", "-c", WATCH, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    return float(note.read_text()) - started


if __name__ == "__main__":
    sys.exit(main())
