"""MANIFEST.json of a corpus and of its token files: read in one place, and believed only if it adds up."""

import contextlib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from infty.base.errors import MissingError, describe_fault
from infty.base.files import Count, FileSum, FileSums, Strict, Sum
from infty.corpora.registry import Split

MANIFEST = "MANIFEST.json"
SCHEMA = 1


class SplitCounts(Strict):
    """Counts and sum of a split. partial: only its first documents were fetched."""

    documents: Count
    bytes: Count
    words: Count
    lines: Count
    sha256: Sum
    partial: Literal[True] | None = None
    source: str


class _Manifest(Strict):
    version: Literal[1] = Field(alias="schema")
    files: FileSums

    @classmethod
    def read(cls, folder: Path, mend: str) -> Self:
        """Read the manifest of a folder of data. MissingError, with `mend`, if it is damaged or of another version."""
        try:
            return cls.model_validate_json((folder / MANIFEST).read_bytes())
        except (OSError, ValidationError) as fault:
            raise MissingError(f"{folder / MANIFEST} is damaged ({describe_fault(fault)}); {mend}") from None


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
    """Manifest of token files. recipe: digest of what they were made of. tokens: how many each split has."""

    recipe: str
    tokenizer: dict[str, Any]
    tokens: dict[Split, Count]


def split_files(split: str) -> tuple[str, str]:
    """Name the two files of a split: its text and its documents."""
    return f"{split}.txt", f"{split}.documents.json"


def is_whole(path: Path, entry: FileSum | None) -> bool:
    """Tell whether a file is what its manifest says."""
    with contextlib.suppress(OSError):
        return entry is not None and path.is_file() and entry.fits(path)
    return False
