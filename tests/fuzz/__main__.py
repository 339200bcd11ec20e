"""``python -m tests.fuzz --cases 20000``: damage files, count how each case ends, fail if one ends badly."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.campaign import Campaign, table_of
from tests.fuzz.worker import BAD


def main() -> int:
    """Run a campaign; 1 where a case crashed, hung, showed a traceback or gave a wrong answer without a word."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many files to damage")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="another seed is other damage")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long, whatever is left")
    parser.add_argument("--jobs", type=int, default=2, help="processes beside each other")
    given = parser.parse_args()
    begun = time.monotonic()
    cases = range(given.first, given.first + given.cases)
    campaign = Campaign(given.seed, given.jobs, given.seconds)
    results = campaign.run(cases)
    print(table_of(results))
    bad = [result for result in results if result.outcome in BAD]
    for result in bad:
        print(f"\ncase {result.case} ({result.kind}): {result.outcome}\n{result.detail}")
    seconds = time.monotonic() - begun
    print(f"\n{len(results)} cases, seed {given.seed}, {given.jobs} processes, {seconds:.0f} s, {len(bad)} bad")
    return 1 if bad or (given.seconds is None and len(results) < given.cases) else 0


if __name__ == "__main__":
    sys.exit(main())
