"""A network that is a program, and not data: an archive of torch.export, opened only for who names its hash.

What such an archive does when it is opened or run is up to its author. So it is never opened unasked; whoever asks
names the SHA-256 of the very file. What is known to run code while an archive is merely loaded is refused even then:
pickles that torch does not load as plain weights, compiled libraries, objects of classes.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geoseg_cli.bundle import Bundle
from geoseg_cli.errors import AccessError, ModelError

MOST_MEMBERS, MOST_BYTES = 10_000, 4 << 30
_AGAIN = "export it again with geoseg export --to pt2, or use a bundle with weights as safetensors"

# torch/export/pt2_archive/constants.py: raw tensors, JSON about them, the graph, a sample of the input.
_KNOWN = re.compile(
    r"[^/]+/(data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/[\w.]+_config\.json"
    r"|models/[\w.]+\.json|data/sample_inputs/[\w.]+\.pt|extra/[^/]+|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id|alignment))"
)

_log = logging.getLogger(__name__)


def open_trusted(bundle: Bundle, trust: str | None) -> nn.Module:
    """Open a bundle's program on the CPU.

    Args:
        bundle: Its weights are an archive of torch.export.
        trust: SHA-256 of the file that the user trusts, lower-case hex; None for nothing.

    Raises:
        AccessError: The user trusts nothing, another file, or the archive holds what runs code when it is loaded.
        ModelError: It is no such archive.
    """
    path, digest = bundle.file("weights"), bundle.sha256("weights")
    if trust is None:
        raise AccessError(
            f"the weights of bundle {bundle.name}, {path.name}, are a program: what it does is up to its author",
            f"if you know who made it, add --trust {digest}",
        )
    if trust != digest:
        raise AccessError(
            f"bundle {bundle.name}: {path.name} is not the file that is trusted (SHA-256 {digest})",
            "compare the hash with that which its author tells",
        )
    refuse_hidden_code(path)
    _log.warning("runs the program %s of bundle %s, trusted by its SHA-256 %s", path.name, bundle.name, digest)
    try:
        return torch.export.load(path).module()
    except Exception as error:  # torch's readers raise errors of any class
        raise ModelError(f"{path} cannot be opened: {str(error)[:200]}", _AGAIN) from error


def refuse_hidden_code(path: Path) -> None:
    """Look at every member of an archive without opening it as a program.

    Raises:
        AccessError: A member would run code while the archive is loaded, or nobody knows what it is.
        ModelError: It is no archive of torch.export.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) != len(names) or len(names) > MOST_MEMBERS:
                raise ModelError(f"{path}: its members have no names of their own, or are too many", _AGAIN)
            if sum(member.file_size for member in members) > MOST_BYTES or any(m.compress_type for m in members):
                raise ModelError(f"{path} is packed, or larger than 4 GiB", _AGAIN)
            for name in names:
                _check_member(path, name, archive)
            if not any(name.endswith("/archive_format") for name in names):
                raise ModelError(f"{path} is no archive of torch.export", _AGAIN)
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is no archive of torch.export: {error}", _AGAIN) from error


def _check_member(path: Path, name: str, archive: zipfile.ZipFile) -> None:
    if _KNOWN.fullmatch(name) is None:
        raise AccessError(f"{path} holds {name}, which may be code", _AGAIN)
    if name.endswith(".pt"):
        try:
            torch.load(io.BytesIO(archive.read(name)), weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise AccessError(f"{path}: its member {name} is a pickle of more than tensors", _AGAIN) from error
    elif name.endswith("_config.json") and _uses_pickle(_parsed(path, name, archive)):
        raise AccessError(f"{path}: {name} asks for a pickle", _AGAIN)


def _parsed(path: Path, name: str, archive: zipfile.ZipFile) -> Any:
    try:
        return json.loads(archive.read(name))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {name} is no JSON", _AGAIN) from error


def _uses_pickle(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("use_pickle")) or any(map(_uses_pickle, value.values()))
    return isinstance(value, list) and any(map(_uses_pickle, value))
