"""Rasters on a network: read only when the user allows it, with bounds on time and tries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from geoseg_cli.errors import BusyError, GeosegError, InputError, InputMissingError

_SCHEMES: Final = {"https": "/vsicurl/https://", "http": "/vsicurl/http://", "s3": "/vsis3/", "gs": "/vsigs/"}
_NOT_THERE: Final = "404|410"
_TRY_AGAIN: Final = "try again later; if it lasts, download it, compare sizes and give the file"
_ADDRESS: Final = re.compile(r"^(https?|s3|gs):/{1,2}(?=[^/])")
TIMEOUT_S: Final = 30
GDAL_OPTIONS: Final = {
    "GDAL_HTTP_TIMEOUT": str(TIMEOUT_S),
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif,.tiff,.TIF,.TIFF,.jp2,.JP2",
}
"""GDAL's configuration while a file on a network is open."""


def is_remote(name: str) -> bool:
    """Whether a name is an address; ``pathlib`` makes ``https:/`` of ``https://``, which counts as well."""
    return _ADDRESS.match(name) is not None or name.startswith(("/vsicurl/", "/vsis3/", "/vsigs/"))


def gdal_name(address: str, is_allowed: bool) -> str:
    """What GDAL opens for an address.

    Raises:
        InputError: Networks are not allowed.
    """
    refuse_network(address, is_allowed)
    match = _ADDRESS.match(address)
    return address if match is None else _SCHEMES[match[1]] + address[match.end() :]


def refuse_network(address: str, is_allowed: bool) -> None:
    """Refuse an address unless networks are allowed.

    Raises:
        InputError: They are not.
    """
    if not is_allowed:
        # A path makes one slash of two.
        whole = re.sub(r"^([a-z0-9]+):/{1,2}", r"\1://", address)
        raise InputError(
            f"{redacted(whole)} lies on a network", "add --allow-network, or download it and give the file"
        )


def redacted(address: str) -> str:
    """An address without its query and without a user's name: both may hold secrets. Other names stay as they are."""
    if not is_remote(address):
        return address
    return re.sub(r"(:/{1,2})[^/@]*@", r"\1", address.split("?", 1)[0])


def address_of(path: Path) -> Path | str:
    """The address that a scene's path stands for, without what may be secret in it; other paths as they are."""
    name = re.sub("^/vsicurl/(?=https?:)", "", str(path))
    for scheme, prefix in (("s3", _SCHEMES["s3"]), ("gs", _SCHEMES["gs"])):
        name = re.sub(f"^{prefix}", f"{scheme}://", name)
    match = _ADDRESS.match(name)
    return path if match is None else redacted(f"{match[1]}://{name[match.end() :]}")


def network_error(path: Path, error: BaseException) -> GeosegError:
    """What GDAL could not open or read on a network: missing, or trouble that may pass."""
    if re.search(rf"HTTP response code: {_NOT_THERE}", str(error)):
        return InputMissingError(f"{address_of(path)}: there is no such file on that server", "check the address")
    why = _without_addresses(error)
    if "not recognized" in why:  # GDAL's last word also where the first was that parts cannot be had
        why = "what it sends is no such raster, or the server does not send parts of files (HTTP ranges)"
    return BusyError(f"{address_of(path)} cannot be read over the network: {why}", _TRY_AGAIN)


def _without_addresses(error: BaseException) -> str:
    """GDAL repeats addresses or their ends, and with them what is secret in them."""
    return re.sub(r"\S*[?@]\S*", "...", str(error))


def read_remote(address: str, most_bytes: int, is_allowed: bool) -> bytes:
    """Fetch a small text from http or https.

    Raises:
        InputError: Networks are not allowed, the scheme is another, or the text is longer than ``most_bytes``.
        InputMissingError, BusyError: It is not there, or cannot be fetched now.
    """
    import http.client
    import urllib.error
    import urllib.request

    refuse_network(address, is_allowed)
    match = _ADDRESS.match(address)
    if match is None or match[1] not in ("http", "https"):
        raise InputError(f"{redacted(address)} cannot be fetched", "give an http or https address, or a file")
    url = f"{match[1]}://{address[match.end() :]}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # the scheme was checked above
            text: bytes = answer.read(most_bytes + 1)
    except urllib.error.HTTPError as error:
        if re.fullmatch(_NOT_THERE, str(error.code)):
            raise InputMissingError(f"{redacted(url)}: the server says {error.code}", "check the address") from error
        raise BusyError(f"{redacted(url)} cannot be fetched: the server says {error.code}", _TRY_AGAIN) from error
    except OSError as error:
        raise BusyError(f"{redacted(url)} cannot be fetched: {error}", _TRY_AGAIN) from error
    except (http.client.HTTPException, ValueError) as error:
        # Its text may hold a password out of the address.
        raise InputError(f"{redacted(url)} cannot be fetched", "give an address without a user's name") from error
    if len(text) > most_bytes:
        raise InputError(f"{redacted(url)} is longer than {most_bytes} bytes", "give the scene itself")
    return text
