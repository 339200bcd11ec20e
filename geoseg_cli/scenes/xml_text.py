"""Reads XML that may come from anyone: a bounded size, one encoding and no declarations, so nothing can expand.

Entities can grow a few bytes to gigabytes or name other files; both need a document type declaration, and none of
the products that geoseg reads has one. Expat 2.4.1 limits the growth once more (CVE-2013-0340).
"""

from __future__ import annotations

import math
import pyexpat
import re
from pathlib import Path
from xml.etree import ElementTree

from geoseg_cli.errors import AccessError, EngineError, InputError, InputMissingError, StorageError

MAX_XML_BYTES = 32 * 2**20
"""Largest XML file that is read; product metadata have some 60 kB, granule metadata less than 1 MB."""

_MAX_MARKUP = 1_000_000
"""Most elements and attributes; real ones have some thousands. Each takes about 100 bytes in memory."""

_FIRST_SAFE_EXPAT = (2, 4, 1)
_ENCODING = re.compile(r"""<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""")
_DECLARATION = re.compile(r"<!(?!--|\[CDATA\[)")
_AGAIN = "download the product again, from a source that you trust"


def read_xml(path: Path) -> ElementTree.Element:
    """Read a file with :func:`parse_xml`.

    Args:
        path: A regular file.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        StorageError: The disk fails.
        InputError: As of :func:`parse_xml`.
    """
    try:
        # A named pipe would block on open.
        if not path.is_file():
            raise InputMissingError(f"{path}: there is no such file", "check the path")
        with path.open("rb") as stream:
            data = stream.read(MAX_XML_BYTES + 1)
    except PermissionError as error:
        raise AccessError(f"{path}: no permission to read it", "ask for it, or chmod +r") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})", "check the path and the disk") from error
    return parse_xml(data, str(path))


def parse_xml(data: bytes, where: str) -> ElementTree.Element:
    """Parse an XML document.

    Args:
        data: The whole document, UTF-8 or ASCII.
        where: What the error messages call it.

    Returns:
        The root element.

    Raises:
        InputError: It is no XML, too large, of another encoding, or declares a document type or entities.
        EngineError: This Python's XML parser is older than expat 2.4.1.
    """
    if pyexpat.version_info < _FIRST_SAFE_EXPAT:
        raise EngineError(
            f"this Python's XML parser is {pyexpat.EXPAT_VERSION}", "update Python: expat 2.4.1 is needed"
        )
    if len(data) > MAX_XML_BYTES or data.count(b"<") + data.count(b"=") > _MAX_MARKUP:
        raise InputError(f"{where} is too large for product metadata: {len(data)} bytes read", _AGAIN)
    text = _decode(data, where)
    if _DECLARATION.search(text):
        raise InputError(f"{where} declares a document type or entities; product metadata have none", _AGAIN)
    try:
        return ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise InputError(f"{where} is no well-formed XML: {error}", "download the product again") from error


def _decode(data: bytes, where: str) -> str:
    """Text of a document that expat is sure to read as the same UTF-8."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is no UTF-8 text", _AGAIN) from error
    stated = _ENCODING.match(text)
    # UTF-16 without accents is valid UTF-8 with NULs between the letters.
    if "\0" in text or (stated and stated[1].lower() not in ("utf-8", "utf8", "ascii", "us-ascii")):
        raise InputError(f"{where} is of another encoding than UTF-8", _AGAIN)
    return text


def local_name(element: ElementTree.Element) -> str:
    """Name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def elements(root: ElementTree.Element, *names: str) -> list[ElementTree.Element]:
    """All elements of these names, in any namespace and at any depth, in the order of the document."""
    return [element for element in root.iter() if local_name(element) in names]


def only_text(root: ElementTree.Element, where: str, *names: str) -> str | None:
    """What elements of these names say; None where there are none.

    Raises:
        InputError: They say different things.
    """
    found = {(element.text or "").strip() for element in elements(root, *names)}
    if len(found) > 1:
        raise InputError(f"{where} says different things as {names[0]}: {', '.join(sorted(found))[:80]}", _AGAIN)
    return found.pop() if found else None


def number(text: str | None, what: str, where: str) -> float:
    """A finite number from the text of an element.

    Raises:
        InputError: It is none.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {what} is no number: {str(text)[:40]!r}", "download the product again")
    return value
