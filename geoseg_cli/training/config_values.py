"""What the tables of a configuration are made of: checked numbers, paths beside the file, and the table itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo


def _refuse_flag(value: Any) -> Any:
    """Python and pydantic count ``true`` as 1 and read ``"6"`` as 6; a file that says so has a slip in it."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, and not true or false")
    if isinstance(value, str):
        raise ValueError("a number is wanted, without quotes")
    return value


def _require_flag(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("true or false is wanted")
    return value


def beside_config(path: Path, info: ValidationInfo) -> Path:
    """A path of the file, absolute."""
    folder: Path = (info.context or {}).get("folder", Path())
    return (folder / path).resolve()


Whole = Annotated[int, BeforeValidator(_refuse_flag)]
Number = Annotated[float, BeforeValidator(_refuse_flag)]
Flag = Annotated[bool, BeforeValidator(_require_flag)]
Share = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
Nodata = Literal["auto", "none"] | Annotated[float, Field(allow_inf_nan=True), BeforeValidator(_refuse_flag)]
ConfigPath = Annotated[Path, AfterValidator(beside_config)]


class Table(BaseModel):
    """A table of the file; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
