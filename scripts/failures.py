"""Write docs/failures.md from the table of failures that the tests run.

python scripts/failures.py            # writes the page
python scripts/failures.py --check    # exits with 1 where the page is another
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "failures.md"
sys.path.insert(0, str(ROOT))

from tests.failures.case import Case, Failure  # noqa: E402
from tests.failures.table import FAILURES, named_cases  # noqa: E402

HEAD: Final = """# What can go wrong, and what geoseg does then

Every row is run by a test through the real command line: the input is built as it says here, the right map is known
beforehand and computed without geoseg, and a run must end either with that map or without one, with the exit code, the
words and the remedy that stand here. A refused or failed run leaves an older map as it was and no other file. No
traceback is shown unless `-vv` asks for it.

A message names the file, the cause and, behind `->`, what helps:

```
geoseg: scene.tif: nothing says what its uint16 numbers mean
  -> say what the numbers mean: --radiometry dn (0.0001 x DN), ...
```

Exit codes: 0 done, 1 some scenes of several failed, 2 the command line, 65 the scene cannot be used, 66 it is not
there, 69 engine or device do not run, 70 a mistake of geoseg, 73 the output exists or cannot be created, 74 reading or
writing failed, 75 may pass: try again, 77 no permission, or a model that would run code, 78 the model does not fit; 130
and 143 after a signal.

Scenes, archives and models that were made to do harm have a table of their own with code and reason for each,
`tests/hostile/attacks.py`, run by `tests/hostile/test_hostile.py`; files that are damaged at random are `tests/fuzz`,
and every operation of the disk that can fail is `tests/faults` ([guarantees.md](guarantees.md)).

`tests/failures/` holds the table; this page is written from it by `python scripts/failures.py`. In the commands below
`geoseg cloudmask SCENE -o map.tif` stands before the options; tests are those of
`tests/failures/test_failures.py::test_failure`; (slow) marks what only `pytest -m slow` runs.
"""
COLUMNS: Final = ("Input", "Options", "Exit code", "What is said", "Remedy", "Test")


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page differs")
    text = page()
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/failures.md is not what the table says: run python scripts/failures.py")


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(failure) for failure in FAILURES)])


def section(failure: Failure) -> str:
    """A failure with its cases and tests."""
    lines = [f"## {failure.number}. {failure.title}\n", f"{failure.does}\n"]
    rows = [cells(name, case) for name, case in named_cases(failure)]
    if rows:
        lines += [line(COLUMNS), line(["---"] * len(COLUMNS)), *map(line, rows), ""]
    if failure.elsewhere:
        lines.append(f"{'Also proved' if rows else 'Proved'} by\n")
        lines += [f"- `{name}`" for name in failure.elsewhere] + [""]
    return "\n".join(lines)


def cells(name: str, case: Case) -> list[str]:
    """What stands in the columns of a case."""
    options = [*case.options, *(["--overwrite"] if case.has_old_map else [])]
    shown = " ".join(option.replace("{folder}/", "") for option in options)
    slow = " (slow)" if case.is_slow else ""
    return [case.given, code(shown), str(case.code), words(case.message), words(case.remedy), f"`[{name}]`{slow}"]


def words(texts: tuple[str, ...]) -> str:
    """Words that a message holds."""
    return " ... ".join(text.removeprefix("warning: ").strip() for text in texts)


def code(text: str) -> str:
    """A text as code; nothing for nothing."""
    return f"`{text}`" if text else ""


def line(row: list[str] | tuple[str, ...]) -> str:
    """A row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


if __name__ == "__main__":
    main()
