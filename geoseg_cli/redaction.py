"""Takes out of texts what must not leave a machine: credentials in addresses, known secrets, the home folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

HIDDEN: Final = "***"
"""Stands where a secret stood."""

LEAST_SECRET: Final = 6
"""Characters that a secret has at least; shorter ones would be found everywhere."""

# A path makes one slash of two; GDAL's names hold addresses behind a prefix.
_ADDRESS: Final = re.compile(
    r"\b((?:https?|ftps?|s3|gs|az|adl|abfss?|wasbs?):/{1,2}(?=[^/\s]))([^\s'\"<>|`]+)", re.IGNORECASE
)
_ASSIGNMENT: Final = re.compile(
    r"((?<![\w-])(?:x-amz-[a-z-]+|aws_[a-z_]+|azure_[a-z_]+|sig|signature|[\w-]*token|api_?key|access_?key|passw(?:or)?d|"
    r"[\w-]*secret[\w-]*)=)[^\s&'\",;]+",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(r"(\b(?:authorization:\s*)?(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_AWS_KEY: Final = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_SECRET_NAME: Final = re.compile(
    r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_?KEY|API_?KEY|SAS$|CONNECTION_STRING|USERPWD|AUTH$|BEARER", re.IGNORECASE
)


def without_credentials(text: str) -> str:
    """A text whose addresses have neither user nor query, and in which what looks like a secret is hidden."""
    text = _ADDRESS.sub(_plain_address, text)
    text = _ASSIGNMENT.sub(rf"\1{HIDDEN}", text)
    return _AWS_KEY.sub(HIDDEN, _HEADER.sub(rf"\1{HIDDEN}", text))


def _plain_address(match: re.Match[str]) -> str:
    rest = re.split(r"[?#]", match[2], maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{match[1]}{host.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True, slots=True)
class Redaction:
    """What a process knows to be secret.

    Attributes:
        secrets: Texts that are hidden wherever they stand, the longest first.
        homes: Folders that are written as ``~``.
    """

    secrets: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()

    @classmethod
    def of(cls, environment: Mapping[str, str], *homes: str) -> Redaction:
        """Take the secrets out of environment variables whose names tell that they hold one.

        Args:
            environment: Name -> value.
            homes: Names of the home folder; the root and empty ones do not count.
        """
        found = {
            value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= LEAST_SECRET
        }
        named = {home.rstrip("/\\") for home in homes}
        return cls(tuple(sorted(found, key=len, reverse=True)), tuple(sorted(named - {""}, key=len, reverse=True)))

    def secretless(self, text: str) -> str:
        """A text without secrets; the home folder stays."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return without_credentials(text)

    def text(self, text: str) -> str:
        """A text without secrets and without the home folder."""
        text = self.secretless(text)
        for home in self.homes:
            # A longer name may begin with it: /home/jo and /home/john.
            text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
        return text

    def value(self, value: Any) -> Any:
        """Plain types, as JSON has them, without secrets and without the home folder; all others become texts."""
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(part) for key, part in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(part) for part in value]
        return value if value is None or isinstance(value, bool | int | float) else self.text(str(value))
