"""Files that are either whole or not there."""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from infty.base.errors import InftyError, MissingError

LOCK_SECONDS = 3600  # to wait for another process that makes the same
FileName = Annotated[str, Field(pattern="^[a-z][a-z.]{0,63}$")]  # of a file in the folder itself, never a path


class FileSum(BaseModel):
    """What a file was when it was written, for a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, on disk before it carries its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, mend: str = "train again with --fresh") -> dict[str, Any]:
    """A JSON object from a file; MissingError, with `mend`, where there is none, it can't be read or is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path} is missing; {mend}") from None
    except OSError as fault:
        raise MissingError(f"{path} can't be read ({fault.strerror or fault}); {mend}") from None
    return parse_json(data, path, mend)


def parse_json(data: bytes, path: Path, mend: str) -> dict[str, Any]:
    """The JSON object that a file held. MissingError, with `mend`, where that was none."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as fault:  # ValueError: no JSON, no UTF-8, or a number without end
        raise MissingError(f"{path} can't be read ({fault}); {mend}") from None
    if not isinstance(value, dict):
        raise MissingError(f"{path} holds no JSON object; {mend}")
    return value


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(lock: Path, work: str) -> Iterator[None]:
    """Hold a lock, after waiting for another process, with a warning. InftyError where that takes an hour.

    work: what each of them does, as "fetches wikitext".
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=1)
    except Timeout:
        warnings.warn(f"waiting for another process that {work}", stacklevel=3)
        try:
            held.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise InftyError(f"another process that {work} has been at it for too long; end it, or wait") from None
    try:
        yield
    finally:
        held.release()
