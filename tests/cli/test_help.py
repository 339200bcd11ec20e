"""Help texts of all commands, as a user reads them in a terminal of 100 columns."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from geoseg_cli.cli import app

GENERATED = re.compile(
    r"<(bool|int|float|str|path|file|list|Path|uuid|datetime|tuple)\b|\b(TEXT|PATH|INTEGER|BOOLEAN|FLOAT)\b|\{[A-Z]"
)
"""What Typer and click make of parameters that nobody named; a sentence may say <stem>."""


def tree() -> dict[str, Any]:
    root: Any = typer.main.get_command(app)
    root.load_all()

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        yield " ".join(words), command
        for name, one in getattr(command, "commands", {}).items():
            yield from walk(one, (*words, name))

    return dict(walk(root, ()))


TREE = tree()


def help_of(words: str) -> str:
    done = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"})
    assert done.exit_code == 0, done.output
    return done.output


def test_the_walk_finds_groups_and_what_is_in_them() -> None:
    assert {"", "classify", "models", "models list", "models show", "batch status", "config path"} <= set(TREE)


@pytest.mark.parametrize("words", TREE)
def test_no_help_text_shows_what_was_generated(words: str) -> None:
    text = help_of(words)
    assert "Usage" in text
    # In front of a placeholder for a name, such as {stem}, there is no capital letter.
    assert not (found := GENERATED.search(text)), f"{words}: {found and found[0]}"


@pytest.mark.parametrize("words", TREE)
def test_paragraphs_fit_into_eighty_columns(words: str) -> None:
    """Behind the first one their lines are shown as they stand: a longer one would be broken twice."""
    _, *others = inspect.cleandoc(TREE[words].help or "").split("\n\n")
    assert [line for paragraph in others for line in paragraph.splitlines() if len(line) > 78] == []


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("verify", "MAP..."),
        ("preview", "MAP [SCENE]"),
        ("composite", "(MAP|FOLDER)..."),
        ("evaluate", "(MAP|BUNDLE) (REFERENCE|FOLDER)"),
        ("config show", "[COMMAND [FLAG]...]"),
    ],
)
def test_the_usage_line_names_arguments_as_manuals_do(words: str, usage: str) -> None:
    assert f"Usage: geoseg {words} [OPTIONS] {usage} " in " ".join(help_of(words).split())


OF_ANOTHER_COMMAND = {"batch status": {"--out-dir"}}


@pytest.mark.parametrize("words", [words for words, one in TREE.items() if not hasattr(one, "commands")])
def test_help_speaks_of_options_that_there_are(words: str) -> None:
    params = TREE[words].params
    own = {word for param in params for word in param.opts} | OF_ANOTHER_COMMAND.get(words, set())
    texts = " ".join(getattr(param, "help", None) or "" for param in params)
    assert set(re.findall(r"--[a-z][a-z-]+", texts)) <= own


@pytest.mark.parametrize(
    ("words", "says"), [("list", "one JSON list"), ("show", "the card"), ("architectures", "one JSON list")]
)
def test_what_models_say_of_json_is_what_they_do(words: str, says: str) -> None:
    text = " ".join(help_of(f"models {words}").replace("│", " ").split())
    assert says in text
    assert "per scene" not in text
