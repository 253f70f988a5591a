"""Archives, opened so that nothing in them can reach beyond their own folder."""

import contextlib
import errno
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from infty.errors import InftyError, MissingError

TAR_ENDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ENDS = (".zip", *TAR_ENDS)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the standard library raises for archives that are cut, altered, locked or of an unknown make.
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error,
           lzma.LZMAError)  # fmt: skip


@contextlib.contextmanager
def opened(path: Path, beside: Path) -> Iterator[Path]:
    """A folder, or what an archive holds, for as long as the block lasts; it is unpacked into `beside`.

    MissingError where there is neither, where the archive is damaged, or where a member would fall outside it or is a
    link or a device: then nothing of it is unpacked. InftyError where the disk has no room for it.
    """
    if path.is_dir() or (path.is_file() and not path.name.lower().endswith(ENDS)):
        yield path
        return
    if not path.is_file():
        raise MissingError(f"{path} is not there: wanted a folder, or an archive ({', '.join(ENDS)})")
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=beside) as folder:
        try:
            _unpack(path, Path(folder))
        except OSError as fault:
            if fault.errno in FULL:
                raise InftyError(f"{path} could not be unpacked into {beside}: {fault.strerror}") from None
            raise MissingError(f"{path} is no archive that can be opened safely: {fault}") from None
        except DAMAGED as fault:
            raise MissingError(f"{path} is no archive that can be opened safely: {fault}") from None
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> None:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                kind = member.external_attr >> 28  # of a Unix file: 8 plain, 4 folder, 10 link
                _refuse_outside(path, member.filename, plain=kind in (0, 4, 8))
            _refuse_large(path, folder, sum(member.file_size for member in archive.infolist()))
            archive.extractall(folder)
        return
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        for member in members:
            _refuse_outside(path, member.name, plain=member.isfile() or member.isdir())
        _refuse_large(path, folder, sum(member.size for member in members))
        archive.extractall(folder, filter="data")


def _refuse_outside(path: Path, name: str, *, plain: bool) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name.partition("/")[0]:
        raise MissingError(f"{path} is refused: its member {name!r} would fall outside the folder it is unpacked into")
    if not plain:
        raise MissingError(f"{path} is refused: its member {name!r} is a link or a device")


def _refuse_large(path: Path, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InftyError(f"{path} unpacks to {size / 1e6:,.0f} MB; {folder.parent} has {free / 1e6:,.0f} MB free")
