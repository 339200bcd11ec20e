"""Wall time per stage and peak memory of one whole scene.

    python benchmarks/scene.py [--side 10980] [--height 10980] [--command classify] [--engine onnx] [--scene FILE]

The scene is synthesised into a temporary folder unless one is given. The tool runs as a process of its own, as a user
starts it; peak memory is that process's maximum resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10_980, help="rows and columns of the synthetic scene")
    parser.add_argument("--height", type=int, help="rows, where they differ from the columns")
    parser.add_argument("--command", choices=["classify", "cloudmask"], default="classify")
    parser.add_argument("--scene", type=Path, help="an existing scene instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments, passed_on = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as folder:
        scene = arguments.scene or synthesise(folder, arguments.height or arguments.side, arguments.side)
        report = measure(arguments.command, scene, Path(folder) / "map.tif", passed_on)
    print(json.dumps(report) if arguments.json else table(report))


def synthesise(folder: str, height_px: int, width_px: int) -> Path:
    """Make the scene in another process: a process starts with the peak memory of the one that started it."""
    path = Path(folder) / "scene.tif"
    subprocess.run(
        [sys.executable, str(HERE / "scene_synthetic.py"), str(path), str(height_px), str(width_px)], check=True
    )
    return path


def measure(command: str, scene: Path, output: Path, options: list[str]) -> dict[str, Any]:
    """Run geoseg on a scene; seconds per stage, core-seconds, peak resident set in MB."""
    arguments = [command, str(scene), "-o", str(output), "--json", "-q", *options]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen([sys.executable, "-m", "geoseg_cli", *arguments], stdout=printed)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"geoseg ended with {process.returncode}")
        printed.seek(0)
        report = json.loads(printed.read())
    return {
        "command": command,
        "size_px": report["size_px"],
        "scene_mb": scene.stat().st_size / 1e6,
        "map_mb": output.stat().st_size / 1e6,
        "engine": report["engine"],
        "tiles": report["tiles"],
        "tile_px": report["tile_px"],
        "overlap_px": report["overlap_px"],
        "cores": os.cpu_count(),
        "seconds": report["seconds"] | {"process": wall},
        "core_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_mb": usage.ru_maxrss * 1024 / 1e6,
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    height, width = report["size_px"]
    engine = report["engine"]
    files = f"{report['scene_mb']:.0f} MB in, {report['map_mb']:.1f} MB out"
    tiling = f"{report['tiles']} tiles of {report['tile_px'][0]} px, overlap {report['overlap_px']} px"
    lines = [
        f"geoseg {report['command']}: {height} x {width} px, {files}",
        f"{engine['name']} on {engine['device']} in {engine['precision']}, {report['cores']} cores, {tiling}",
    ]
    total = report["seconds"]["process"]
    for stage, seconds in report["seconds"].items():
        lines.append(f"  {stage:8} {seconds:8.1f} s  {seconds / total:6.1%}")
    rate = height * width / 1e6 / total
    lines.append(
        f"  {rate:.2f} Mpx/s, {report['core_seconds']:.0f} core-seconds, peak memory {report['peak_rss_mb']:.0f} MB"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
