"""MANIFEST.json of a corpus and of its token files: read in one place, and believed only if it adds up."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infty.base.errors import MissingError
from infty.base.files import FileName, FileSum, sha256
from infty.base.messages import describe_fault
from infty.corpora.registry import Split

MANIFEST = "MANIFEST.json"
SCHEMA = 1
Count = Annotated[int, Field(ge=0, lt=2**63)]
Sum = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SplitCounts(_Strict):
    """Counts and sum of a split. partial: only its first documents were fetched."""

    documents: Count
    bytes: Count
    words: Count
    lines: Count
    sha256: Sum
    partial: Literal[True] | None = None
    source: str


class _Manifest(_Strict):
    version: Literal[1] = Field(alias="schema")
    files: dict[FileName, FileSum]


class CorpusManifest(_Manifest):
    """Manifest of an imported corpus, or of a tokeniser, which has no splits."""

    splits: dict[Split, SplitCounts]
    origin: str | None = None

    @model_validator(mode="after")
    def _splits_have_their_files(self) -> "CorpusManifest":
        for split, counts in self.splits.items():
            text, documents = (self.files.get(name) for name in split_files(split))
            if documents is None or text != FileSum(bytes=counts.bytes, sha256=counts.sha256):
                raise ValueError(f"{split} and its files do not fit together")
        return self


class TokensManifest(_Manifest):
    """Manifest of token files. recipe: what they were made of. tokens: how many each split has."""

    recipe: str
    tokenizer: dict[str, Any]
    tokens: dict[Split, Count]


Kind = TypeVar("Kind", bound=_Manifest)


def split_files(split: str) -> tuple[str, str]:
    """Name the two files of a split: its text and its documents."""
    return f"{split}.txt", f"{split}.documents.json"


def read_manifest(folder: Path, kind: type[Kind], mend: str) -> Kind:
    """Read the manifest of a folder of data. MissingError, with `mend`, if it is damaged or of another version."""
    try:
        return kind.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as fault:
        raise MissingError(f"{folder / MANIFEST} is damaged ({describe_fault(fault)}); {mend}") from None


def is_whole(path: Path, entry: FileSum | None) -> bool:
    """Tell whether a file is what its manifest says."""
    try:
        if entry is None or not path.is_file() or path.stat().st_size != entry.bytes:
            return False
        return sha256(path) == entry.sha256
    except OSError:
        return False
