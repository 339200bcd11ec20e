"""geoseg's command line; options that the task does not know are passed on to its command."""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from contextlib import redirect_stdout
from typing import Any

from memory import peak_rss_mb


def main() -> None:
    """Run the command in this process, as the console script does, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--bundle", default="landcover-lale")
    parser.add_argument("--layout", help="not used: geoseg chooses")
    task, options = parser.parse_known_args()
    verb = "cloudmask" if task.bundle.startswith("cloud") else "classify"
    command = [verb, task.scene, "-o", task.output, "--model", task.bundle, "--json", "-q", "--overwrite"]
    started = time.process_time()
    found = run(["geoseg", *command, *options])
    # Its imports and the loading of the network are in it, which the other adapters leave out.
    print(json.dumps(describe(found) | {"work_core_s": time.process_time() - started}))


def run(command: list[str]) -> dict[str, Any]:
    """What geoseg's JSON report says."""
    # Imported here: the process must load no more than a user's does, and when a user's does.
    from geoseg_cli.cli import main as geoseg

    sys.argv = command
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            geoseg()
    except SystemExit as end:
        if end.code:
            raise
    report: dict[str, Any] = json.loads(printed.getvalue())
    return report


def describe(found: dict[str, Any]) -> dict[str, Any]:
    """The adapters' report from geoseg's."""
    from geoseg_cli.tiles import Axis
    from geoseg_cli.version import __version__

    (height, width), (tile, _), overlap = found["size_px"], found["tile_px"], found["overlap_px"]
    engine = found["engine"]
    return {
        "tool": "geoseg",
        "version": __version__,
        "tile_px": tile,
        "overlap_px": overlap,
        "size_px": [height, width],
        "row_starts": Axis.spread(height, tile, overlap, 1).starts,
        "col_starts": Axis.spread(width, tile, overlap, 1).starts,
        "stand_ins": [],
        "seconds": {"work": found["seconds"]["total"], "network": found["seconds"]["run"]},
        "tiles": found["tiles_run"],
        "pixels_computed": found["tiles_run"] * tile * tile,
        "engine": f"{engine['name']} {engine['precision']}",
        "peak_rss_mb": peak_rss_mb(),
    }


if __name__ == "__main__":
    main()
