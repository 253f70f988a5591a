"""A JSON object of a run as a record: validated when it is made, and dumped with its file's keys in their order."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infty.base.errors import MissingError, one_line
from infty.base.files import read_json, write_json

AGAIN = "train again with --fresh"
SORTING, TEXT = "<sorting>", "<text>"  # tags of what differs between tasks; no key of a file is spelled like them

Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(gt=0, le=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Nats = Annotated[float, Field(ge=0, le=1e15)]
Amount = Annotated[float, Field(ge=0, le=1e305)]  # sums over runs stay finite
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]  # may be part of a file's name
Experiment = Annotated[str, Field(pattern=r"^[^/\\\p{C}\p{Zl}\p{Zp}]{1,100}$")]
Text = Annotated[str, Field(pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}]*$")]  # a line of a table


class Record(BaseModel):
    """A JSON object of a run. Other keys than its own may hold anything, and are not kept."""

    model_config = ConfigDict(
        frozen=True, strict=True, allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True
    )

    @classmethod
    def read(cls, file: Path, mend: str = AGAIN) -> Self:
        """Read a file. Raises MissingError, with `mend`, if it is not there, damaged, or holds no such record."""
        return cls.check(read_json(file, mend), file, mend)

    @classmethod
    def check(cls, values: Any, file: Any, mend: str = AGAIN) -> Self:
        """Make a record of the values in `file`. Raises MissingError, with a line on the first thing that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            fault = error.errors()[0]
            what = {"missing": "is missing", "model_type": "wanted a mapping"}.get(
                fault["type"], fault["msg"].removeprefix("Value error, ")
            )
            keys = ".".join(str(key) for key in fault["loc"] if key not in (SORTING, TEXT))
            line = ": ".join([keys, what.replace("Input should be", "must be")])
            raise MissingError(f"{file}: {one_line(line.removeprefix(': '))}; {mend}") from None

    def write(self, file: Path) -> None:
        """Write its file, replacing an old one in one step."""
        write_json(file, self.model_dump())
