"""Read and write files and folders that are either whole or absent."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from infty.base.errors import LONG, MissingError, one_line

OLD = ".old.tmp"  # ends the name of a folder that makes way for a new one
UNKNOWN = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # a file system knows no such thing
FileName = Annotated[str, Field(pattern="^[a-z][a-z.]{0,63}$")]  # of a file in the folder itself, never a path
Count = Annotated[int, Field(ge=0, lt=2**63)]
Sum = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """The content of a file: exactly these fields, each strictly of its type, and finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def omit_default(default: Any, **more: Any) -> Any:
    """Declare a field that is written only if it differs from its default, as in files older than the field."""
    return Field(default, exclude_if=lambda value: value == default, **more)


class FileSum(Strict):
    """Size and checksum of a file when it was written, for a manifest."""

    bytes: Count
    sha256: Sum

    def fits(self, path: Path) -> bool:
        """Tell if a file is what was written. OSError if it is not there."""
        return path.stat().st_size == self.bytes and sha256(path) == self.sha256


FileSums = dict[FileName, FileSum]  # of all files in a folder


@contextlib.contextmanager
def replace_folder(path: Path, keep: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder beside `path`, which is renamed to `path` if the block ends without an error.

    A process that is killed leaves the old folder or the new one whole, under its name or where `restore_folder` finds
    it. If the block removes the new folder, nothing is replaced. keep: names that move from the old folder to the new.

    Raises:
        OSError: The disk is full or fails.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    restore_folder(path)
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if temporary.exists():
            move_folder(temporary, path, keep)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_folder(source: Path, path: Path, keep: Sequence[str] = ()) -> None:
    """Rename a finished folder to `path` once all of it is on disk (see `replace_folder`)."""
    for inner in (*source.rglob("*"), source):
        flush(inner)

    # The old folder makes way, and comes back if the new one can't take its place.
    old = path.with_name(f".{path.name}{OLD}")
    _discard(old)
    if path.exists():
        path.replace(old)
    try:
        source.replace(path)
    except BaseException:
        restore_folder(path)
        raise

    # Move what is kept before the rest of the old folder is removed.
    for name in keep:
        if (old / name).exists():
            (old / name).replace(path / name)
    flush(path.parent)
    _discard(old)


def _discard(path: Path) -> None:
    """Remove a folder as far as that can be done, or a link to one that another disk holds, which stays whole."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Give a folder its name back if it made way for a new one but the process was killed before the new one came."""
    old = path.with_name(f".{path.name}{OLD}")
    if old.is_dir() and not path.exists():
        old.replace(path)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file beside `path`, which is renamed to `path` if the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step; the new text is on disk before it takes the file's name."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step. ValueError for NaN and infinity, which are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, mend: str = "train again with --fresh") -> dict[str, Any]:
    """Read a JSON object. MissingError, which ends with `mend`, if the file is missing, unreadable or damaged."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        why = "is missing" if isinstance(fault, FileNotFoundError) else f"can't be read ({fault.strerror or fault})"
        raise MissingError(f"{path} {why}; {mend}") from None
    return parse_json(data, path, mend)


def parse_json(data: bytes, path: Path, mend: str) -> dict[str, Any]:
    """Parse the JSON object that a file held. MissingError, which ends with `mend`, if it held none."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as fault:  # ValueError: not JSON, not UTF-8, or too many digits
        raise MissingError(f"{path} can't be read ({fault}); {mend}") from None
    if not isinstance(value, dict):
        raise MissingError(f"{path} holds no JSON object; {mend}")
    return value


@contextlib.contextmanager
def blame_file(path: Path) -> Iterator[None]:
    """Turn an OSError within the block into a MissingError of one line, which names the error's file or else `path`."""
    try:
        yield
    except OSError as fault:
        why = f"{fault.filename or path} can't be read ({fault.strerror or fault}); take it away or mend it"
        raise MissingError(one_line(why, LONG)) from None


def sum_files(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return the size and checksum of every file in a folder, as a manifest lists them (see `FileSum`)."""
    return {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(folder.iterdir())}


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk.

    A folder on a network's file system may refuse, which is passed over: the files in it are on disk.

    Raises:
        OSError: That fails; it names the path.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as fault:
        if not (fault.errno in UNKNOWN and path.is_dir()):
            raise OSError(fault.errno, fault.strerror, str(path)) from None
    finally:
        os.close(descriptor)


def empty_folder(path: Path) -> None:
    """Remove all that is in a folder, or in the one that a link leads to; no other links are followed.

    Raises:
        OSError: Something can't be removed; it names the whole path, which `shutil.rmtree` does not. If it is known
            beforehand, as in `refuse_protected`, nothing is removed.
    """
    refuse_protected(path)

    def refuse(fault: OSError) -> None:
        raise fault

    for folder, names, files in os.walk(path, topdown=False, onerror=refuse):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in names:
            inner = os.path.join(folder, name)
            (os.unlink if os.path.islink(inner) else os.rmdir)(inner)


def refuse_protected(*folders: Path) -> None:
    """Raise OSError if what is in a folder may not be removed, because of its rights or those of one in it."""
    for folder in folders:
        for path, inner, names in os.walk(folder):
            if (inner or names) and not os.access(path, os.W_OK | os.X_OK):
                why = "it may not be written to, so nothing of this was removed; change its rights first"
                raise PermissionError(errno.EACCES, why, path)


def refuse_broken_link(path: Path) -> None:
    """Raise MissingError if a path, or one above it, is a link to no folder, as to a disk that is not there."""
    for link in (path, *path.parents):
        if link.is_symlink() and not os.path.isdir(link):
            goal = f"{link} is a link to {os.readlink(link)}, which is {'no folder' * link.exists() or 'not there'}"
            raise MissingError(f"{goal}; bring that disk or folder back, or remove the link")


def remove_folder(path: Path) -> None:
    """Remove a folder and all that is in it. A link to a folder stays, since what comes next belongs there too.

    Raises:
        OSError: As in `empty_folder`.
    """
    empty_folder(path)
    if not path.is_symlink():
        path.rmdir()
