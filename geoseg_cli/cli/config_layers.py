"""Where the values of options come from, beside flags: environment, ``geoseg.toml``, the user's file.

Everything becomes what would have been typed behind a flag, and is read by the same types; what is found ends in the
``default_map`` of the commands. Nothing here prints.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from geoseg_cli.errors import ConfigError

PROJECT_FILE, USER_FILE, DEFAULTS = "geoseg.toml", "config.toml", "defaults"
PREFIX, CONFIG_VARIABLE = "GEOSEG", "GEOSEG_CONFIG"

_NEVER = {"help", "version", "config", "install_completion", "show_completion"}
_OF_ITSELF = "config"
"""The command that shows this has no settings of its own."""
_GUARDED_STARTS, _GUARDED = ("allow_", "trust", "insecure", "tls_"), {"overwrite", "force", "scheduler"}
"""Parameters that a file found in a folder may not set: it can have come with somebody's data."""
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}

Words = tuple[str, ...]
"""Names of a command: ``("scene", "info")``."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it stands.

    Attributes:
        value: What a flag would give: text, several texts, a switch or a count.
        source: Name of a variable, or path of a file.
    """

    value: str | list[str] | bool | int
    source: str


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file.

    Attributes:
        path: Where it lies.
        tables: What it holds.
        is_user: Whether it is the user's own, which may set everything.
    """

    path: Path
    tables: Mapping[str, Any]
    is_user: bool

    def wrong(self, message: str, hint: str, table: Words, key: str) -> ConfigError:
        """An error that names the line where it can be found."""
        line = _line_of(self.path, table, key)
        return ConfigError(f"{self.path}{f', line {line}' if line else ''}: {message}", hint)


def user_file() -> Path:
    """Where the user's own file lies, whether or not it is there."""
    return Path(typer.get_app_dir("geoseg")) / USER_FILE


def project_file(named: Path | None, environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file that was named, or the nearest ``geoseg.toml`` here or in a folder above.

    Raises:
        ConfigError: The named file is not there.
    """
    text = environ.get(CONFIG_VARIABLE)
    chosen = named or (Path(text) if text else None)
    if chosen is not None:
        if not os.path.exists(chosen):  # which bears names too long to exist
            raise ConfigError(f"there is no configuration {chosen}", f"correct --config or {CONFIG_VARIABLE}")
        return chosen
    found = (parent / PROJECT_FILE for parent in (folder, *folder.parents))
    return next((path for path in found if path.is_file()), None)


def read_files(root: Any, project: Path | None) -> list[ConfigFile]:
    """Read and check the files that are there, the one that decides first.

    Args:
        root: The tool's group of commands.
        project: See ``project_file``.

    Raises:
        ConfigError: A file is no TOML, or has an unknown table or key, or a value that its option does not take.
    """
    user = user_file()
    files = [_read(project, False)] if project else []
    if user.is_file():
        files.append(_read(user, True))
    for file in files:
        _check(file, root)
    return files


def leaves(group: Any, words: Words = ()) -> Iterator[tuple[Words, Any]]:
    """Every command that does something, with its names."""
    for name, command in group.commands.items():
        if (*words, name) == (_OF_ITSELF,):
            continue
        if hasattr(command, "commands"):
            yield from leaves(command, (*words, name))
        else:
            yield (*words, name), command


def settings_of(
    root: Any, words: Words, command: Any, files: Sequence[ConfigFile], environ: Mapping[str, str]
) -> dict[str, Setting]:
    """What is set for a command, by the names of its parameters.

    Raises:
        ConfigError: A variable has a value that its option does not take.
    """
    found: dict[str, Setting] = {}
    for key, param in options_of(command).items():
        if param.name not in found:
            setting = _from_environment(root, words, command, param, key, environ)
            setting = setting or _from_files(words, command, param, files)
            if setting is not None:
                found[param.name] = setting
    return found


def default_map(root: Any, files: Sequence[ConfigFile], environ: Mapping[str, str], under: str) -> dict[str, Any]:
    """What click takes as defaults of the commands under one name."""
    tree: dict[str, Any] = {}
    for words, command in leaves(root):
        if words[0] != under:
            continue
        place = tree
        for word in words:
            place = place.setdefault(word, {})
        place |= {name: one.value for name, one in settings_of(root, words, command, files, environ).items()}
    return tree


def options_of(command: Any) -> dict[str, Any]:
    """Long name of an option, without dashes -> its parameter."""
    return {
        word.removeprefix("--"): param
        for param in command.params
        if param.param_type_name == "option" and param.name not in _NEVER
        for word in param.opts
        if word.startswith("--")
    }


def is_guarded(name: str) -> bool:
    """Whether only flags, the environment and the user's own file may set a parameter."""
    return name.startswith(_GUARDED_STARTS) or name in _GUARDED


def _read(path: Path, is_user: bool) -> ConfigFile:
    import tomllib

    try:
        with open(path, "rb") as file:
            return ConfigFile(path, tomllib.load(file), is_user)
    except (ValueError, RecursionError) as error:  # numbers of too many digits, too
        raise ConfigError(f"{path} is no TOML: {error}", "correct it, or name another file with --config") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "name another file with --config") from error


def _check(file: ConfigFile, root: Any) -> None:
    for name, table in file.tables.items():
        if name == DEFAULTS and isinstance(table, dict):
            for key, value in table.items():
                _check_default(file, root, key, value)
        elif name != _OF_ITSELF and name in root.commands and isinstance(table, dict):
            _check_table(file, (name,), root.commands[name], table)
        else:
            known = [DEFAULTS, *(one for one in root.commands if one != _OF_ITSELF)]
            what = "table" if isinstance(table, dict) else "key outside of a table"
            raise file.wrong(f"{name} is an unknown {what}", _nearest(name, known), (), name)


def _check_table(file: ConfigFile, words: Words, command: Any, table: Mapping[str, Any]) -> None:
    inner, options = getattr(command, "commands", {}), options_of(command)
    for key, value in table.items():
        if key in inner and isinstance(value, dict):
            _check_table(file, (*words, key), inner[key], value)
        elif key in options and not inner:
            _refuse_guarded(file, options[key], words, key)
            try:
                _typed(command, options[key], value, file.path.parent)
            except ValueError as error:
                raise file.wrong(f"{key} {error}", f"see geoseg {' '.join(words)} --help", words, key) from error
        else:
            raise file.wrong(f"[{'.'.join(words)}] has no option {key!r}", _nearest(key, inner or options), words, key)


def _check_default(file: ConfigFile, root: Any, key: str, value: Any) -> None:
    """A default must be a value of some command's option."""
    takers = [(command, options[key]) for _, command in leaves(root) if key in (options := options_of(command))]
    if not takers:
        every = {name for _, command in leaves(root) for name in options_of(command)}
        raise file.wrong(f"[{DEFAULTS}]: no command has an option {key!r}", _nearest(key, every), (DEFAULTS,), key)
    _refuse_guarded(file, takers[0][1], (DEFAULTS,), key)
    reasons = [_why_not(command, param, value, file.path.parent) for command, param in takers]
    if all(reasons):
        raise file.wrong(f"{key} {reasons[0]}", "correct the value", (DEFAULTS,), key)


def _refuse_guarded(file: ConfigFile, param: Any, table: Words, key: str) -> None:
    if not file.is_user and is_guarded(param.name):
        raise file.wrong(
            f"{key} may not be set by a file that can come with data",
            f"use the flag --{key}, {PREFIX}_{param.name.upper()}, or {user_file()}",
            table,
            key,
        )


def _from_files(words: Words, command: Any, param: Any, files: Sequence[ConfigFile]) -> Setting | None:
    names = [word.removeprefix("--") for word in param.opts]
    for file in files:
        for path in (words, (DEFAULTS,)):
            table: Any = file.tables
            for word in path:
                table = table.get(word, {})
            for name in names:
                if name not in table or _why_not(command, param, table[name], file.path.parent):
                    continue  # a default of another command's option; tables were checked when they were read
                return Setting(_typed(command, param, table[name], file.path.parent), str(file.path))
    return None


def _from_environment(
    root: Any, words: Words, command: Any, param: Any, key: str, environ: Mapping[str, str]
) -> Setting | None:
    own = variable_of(words, key)
    for name in (own, variable_of((), key)):
        text = environ.get(name)
        if not text:
            continue
        try:
            return Setting(_typed(command, param, _of_text(param, text), None), name)
        except ValueError as error:
            if name == own or not _fits_another(root, key, text):
                raise ConfigError(f"{name}={text!r} {error}", f"see geoseg {' '.join(words)} --help") from error
    return None


def variable_of(words: Words, key: str) -> str:
    """The variable that sets an option: of one command, or of all with ``()``."""
    return "_".join((PREFIX, *words, key)).upper().replace("-", "_")


def _fits_another(root: Any, key: str, text: str) -> bool:
    for _, command in leaves(root):
        param = options_of(command).get(key)
        if param is not None:
            try:
                _typed(command, param, _of_text(param, text), None)
            except ValueError:
                continue
            return True
    return False


def _of_text(param: Any, text: str) -> Any:
    """What a variable says, as a file would."""
    if param.is_flag:
        word = text.strip().casefold()
        if word not in _TRUE | _FALSE:
            raise ValueError("is neither true nor false")
        return word in _TRUE
    if getattr(param, "count", False):
        return int(text) if text.isascii() and text.isdigit() else text
    return text.split() if param.multiple else text


def _why_not(command: Any, param: Any, value: Any, folder: Path) -> str | None:
    try:
        _typed(command, param, value, folder)
    except ValueError as error:
        return str(error)
    return None


def _typed(command: Any, param: Any, value: Any, folder: Path | None) -> str | list[str] | bool | int:
    """A value as the command line would give it, accepted by the option's own type.

    Args:
        command: Whose option it is.
        param: The option.
        value: From a file or a variable.
        folder: What relative paths begin at; None for where the tool was started.

    Raises:
        ValueError: The option does not take it; the text follows the option's name.
    """
    if param.is_flag or getattr(param, "count", False):
        wanted = bool if param.is_flag else int
        if type(value) is not wanted:
            raise ValueError(f"is {value!r}, not {'true or false' if param.is_flag else 'a whole number'}")
        checked: bool | int = value
        return checked
    if param.multiple != isinstance(value, list):
        raise ValueError(f"is {value!r}, not {'a list' if param.multiple else 'one value'}")
    texts = [_text(param, one, folder) for one in (value if param.multiple else [value])]
    given = texts if param.multiple else texts[0]
    context = command.make_context(command.name, [], resilient_parsing=True)
    context.resilient_parsing = False
    try:
        param.process_value(context, given)
    except Exception as error:  # Typer has its own copy of click's errors, or click's, as its version is
        if not hasattr(error, "format_message"):
            raise
        raise ValueError(f"is {value!r}: {getattr(error, 'message', error)}") from error
    return given


def _text(param: Any, value: Any, folder: Path | None) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"is {value!r}, not text or a number")
    text = str(value)
    if folder is not None and (_is_path(param) or ("FOLDER" in (param.metavar or "") and re.search(r"[/\\]", text))):
        return os.path.join(folder, os.path.expanduser(text))
    return text


def _is_path(param: Any) -> bool:
    described = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    return described is Path or getattr(getattr(param, "type", None), "name", None) == "path"


def _nearest(word: str, known: Any) -> str:
    import difflib

    near = difflib.get_close_matches(word, list(known), 3)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(known))}"


def _line_of(path: Path, table: Words, key: str) -> int | None:
    """Where a key, or the header of a table, stands in a file; None where it is written in another way."""
    here: Words = ()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        if header:
            here = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            if not table and here[:1] == (key,):
                return number
        elif here == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    return None
