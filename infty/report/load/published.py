"""Numbers in print, from `published.yaml`: each with how it is known."""

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from infty.config.strict_yaml import parse_yaml

FILE = Path(__file__).with_name("published.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Value(_Strict):
    """A figure of one row in one column."""

    case: str
    model: str
    value: float
    source: str


class Claim(_Strict):
    """A claim in print: in a column the row `ahead` does better than the row `of`."""

    case: str
    ahead: str
    of: str
    source: str


class Publication(_Strict):
    """Figures in print of an experiment. words: of the test text in each column, which a figure is comparable on."""

    protocol: str
    metric: str | None = None
    words: dict[str, int] = {}
    values: list[Value] = []
    claims: list[Claim] = []


class _Published(_Strict):
    sources: dict[str, str]
    experiments: dict[str, Publication]


@cache
def load_published() -> _Published:
    """Load all of it. ValueError if the file is not of this form."""
    return _Published.model_validate(parse_yaml(FILE.read_text(encoding="utf-8")))
