"""Archives, opened so that nothing in them can reach beyond their own folder."""

import contextlib
import errno
import lzma
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from infty.base.errors import LONG, InftyError, MissingError, describe_fault, one_line
from infty.base.files import blame_file
from infty.corpora.text_pieces import PIECE

# Members are checked here, not by tarfile's data filter, which strips a leading "/" instead of refusing it, does not
# know "C:" or "\\" as the beginning of a path, and is missing in Python 3.11.0 to 3.11.3.
ENDS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MANY = 500_000  # members; PG-19 has 28,753
DEEP = 32  # folders within folders
# Errors of the standard library for a disk, and for archives that are cut off, altered, encrypted or unknown.
DAMAGED = (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError, ValueError,
           zlib.error, lzma.LZMAError, struct.error, OverflowError, MemoryError, IndexError)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A file or a folder in an archive. is_plain: it is neither a link nor a device."""

    name: str
    size: int
    is_folder: bool
    is_plain: bool
    open: Callable[[], Any]


@contextlib.contextmanager
def open_folder(path: Path, beside: Path) -> Iterator[Path]:
    """Open a folder, or unpack an archive into a temporary one in `beside`, removed after the block.

    Raises:
        MissingError: There is neither, it is damaged, or a member is a link, a device or outside; nothing is unpacked.
        InftyError: The disk has no room for it.
    """
    is_archive = os.path.isfile(path) and path.name.lower().endswith(ENDS)
    if not (os.path.isfile(path) or os.path.isdir(path)):  # Path's own raises for names that no file can have
        raise MissingError(f"{path} is not there: wanted a folder, or an archive ({', '.join(ENDS)})")
    with _unpack_beside(path, beside) if is_archive else contextlib.nullcontext(path) as folder:
        try:
            with blame_file(path):
                yield folder
        except MissingError as fault:  # in one line, and without the name of a folder that is about to go
            raise MissingError(one_line(str(fault).replace(str(folder), str(path)), LONG)) from None


@contextlib.contextmanager
def _unpack_beside(path: Path, beside: Path) -> Iterator[Path]:
    """Unpack an archive into a temporary folder. Whatever the archive is, a failure is reported in one line."""
    try:
        beside.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".archive-", dir=beside)
    except OSError as fault:
        hint = "another folder of corpora: INFTY_DATA or infty.toml"
        raise InftyError(f"nothing can be unpacked into {beside}: {fault.strerror} ({hint})") from None
    with temporary as folder:
        try:
            _unpack(path, Path(folder))
        except DAMAGED as fault:
            if isinstance(fault, OSError) and fault.errno in FULL:
                raise InftyError(f"{path} could not be unpacked into {beside}: {fault.strerror}") from None
            raise MissingError(f"{path} is no archive that can be opened safely: {describe_fault(fault)}") from None
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack the data of an archive's members, without their modes and times."""
    with _open_members(path) as members:
        # Every member is looked at before the first is written.
        size, places = 0, dict[PurePosixPath, Member]()
        for count, member in enumerate(members):
            if count == MANY:
                raise MissingError(f"{path} is refused: it has more than {MANY:,} members")
            size += member.size
            if size > (free := shutil.disk_usage(folder).free):
                room = f"{folder.parent} has {free / 1e6:,.0f} MB free"
                raise InftyError(f"{path} unpacks to {size / 1e6:,.0f} MB; {room}")
            place = _find_place(path, member)
            if place in places and not (member.is_folder and places[place].is_folder):
                raise MissingError(f"{path} is refused: it has two members {_shorten(member.name)}")
            places[place] = member

        # A file is never written over another, not even on systems that take two of these names for one.
        for place, member in places.items():
            target = folder / place
            (target if member.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if not member.is_folder:
                with member.open() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, PIECE)


def _find_place(path: Path, member: Member) -> PurePosixPath:
    """Find a member's path below the folder that it is unpacked into. MissingError if it is refused."""
    place, why = PurePosixPath(member.name.replace("\\", "/")), None
    if place.is_absolute() or ".." in place.parts or ":" in member.name.partition("/")[0]:
        why = "would fall outside the folder it is unpacked into"
    elif not member.is_plain:
        why = "is a link or a device"
    elif len(place.parts) > DEEP:
        why = f"lies more than {DEEP} folders deep"
    if why is not None:
        raise MissingError(f"{path} is refused: its member {_shorten(member.name)} {why}")
    return place


def _shorten(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}…")


@contextlib.contextmanager
def _open_members(path: Path) -> Iterator[Iterable[Member]]:
    if not path.name.lower().endswith(".zip"):
        with tarfile.open(path) as archive:
            yield _describe_tar_members(archive)
        return
    with zipfile.ZipFile(path) as archive:
        plain = (0, 4, 8)  # the file is of another system, a folder of Unix, or data; 10 is a link
        yield [
            Member(m.filename, m.file_size, m.is_dir(), m.external_attr >> 28 in plain, partial(archive.open, m))
            for m in archive.infolist()
        ]


def _describe_tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    """Describe the members of a tar. ReadError if a damaged header would pass for the end, which only zeros follow."""
    for member in archive:
        if member.size < 0:  # tarfile would loop forever
            raise tarfile.ReadError(f"a member has {member.size} bytes")
        if member.issparse():  # a few bytes that become as many zeros as they say
            raise tarfile.ReadError(f"{_shorten(member.name)} is a file with holes; pack it without them")
        is_plain = member.isreg() or member.isdir()
        yield Member(member.name, member.size, member.isdir(), is_plain, partial(archive.extractfile, member))
    stream: Any = archive.fileobj
    stream.seek(archive.offset)
    if len(rest := stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is cut off")
    while rest:
        if any(rest):
            raise tarfile.ReadError("a header is damaged, or something stands behind the end")
        rest = stream.read(PIECE)
