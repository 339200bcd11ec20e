"""``python -m tests.faults``: let every file operation of small runs go wrong, and count what survives."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

from tests.faults.campaign import faults_of, faults_of_gdal, opened_stages, run_all, table_of


def main() -> int:
    """Run the faults; 1 where an output did not survive one."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--jobs", type=int, default=2, help="processes beside each other")
    parser.add_argument("--stage", action="append", default=[], help="only this run; may be repeated")
    parser.add_argument("--sample", type=int, default=None, help="only so many faults, drawn at random")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long, whatever is left")
    parser.add_argument("--gdal", type=int, default=60, help="full disks, file limits and random kills of each run")
    given = parser.parse_args()
    begun = time.monotonic()
    with opened_stages(given.stage) as made:
        faults = [fault for stage in made.values() for fault in (*faults_of(stage), *faults_of_gdal(stage, given.gdal))]
        random.Random(0).shuffle(faults)  # so that what time allows is drawn from all
        results = run_all(made, faults[: given.sample], given.jobs, given.seconds)
    bad = [result for result in results if result.trouble]
    seconds = round(time.monotonic() - begun)
    if given.json:
        survived = len(results) - len(bad)
        print(json.dumps({"possible": len(faults), "faults": len(results), "survived": survived, "seconds": seconds}))
    else:
        print(table_of(results))
        survived = f"{len(results) - len(bad)}/{len(results)} faults survived"
        print(f"\n{survived}, of {len(faults)} that were planned; {given.jobs} processes, {seconds} s")
    for result in bad:
        fault = result.fault
        print(f"\n{fault.stage}, {fault.kind} at {fault.at} {fault.operation}: {result.trouble}", file=sys.stderr)
    return 1 if bad or not results else 0


if __name__ == "__main__":
    sys.exit(main())
