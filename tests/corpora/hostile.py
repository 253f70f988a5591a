"""Archives that are whole and were made to do harm, and what else is handed to an import."""

import bz2
import gzip
import io
import lzma
import tarfile
import warnings
import zipfile
from typing import Any, Literal

import pyarrow as pa
from hypothesis import strategies as st
from pyarrow import parquet

from tests.corpora.conftest import ARTICLES


def zip_of(members: list[tuple[zipfile.ZipInfo, bytes]], sizes: list[int | None] | None = None) -> bytes:
    """A zip. sizes: what it is to say that its members have."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of one name
        for member, data in members:
            archive.writestr(member, data)
        for member, size in zip(archive.infolist(), sizes or [], strict=False):
            member.file_size = member.file_size if size is None else size
    return file.getvalue()


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]], format: Literal[1, 2] = tarfile.GNU_FORMAT) -> bytes:
    """A tar, which says of its members whatever they say."""
    file = io.BytesIO()
    for member, data in members:
        file.write(member.tobuf(format, "utf-8", "surrogateescape"))
        file.write(data + bytes(-len(data) % 512))
    return file.getvalue() + bytes(1024)


def tar_member(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member, data


FILES = {f"wikitext/wiki.{split}.tokens": text.encode() for split, text in ARTICLES.items()}
TAR = tar_of([tar_member(name, data) for name, data in FILES.items()])
PAX = tar_of([tar_member("é" * 60 + name, data) for name, data in FILES.items()], tarfile.PAX_FORMAT)
ARCHIVES = {
    "a.zip": zip_of([(zipfile.ZipInfo(name), data) for name, data in FILES.items()]),
    "a.tar": TAR,
    "pax.tar": PAX,
    "a.tar.gz": gzip.compress(TAR, mtime=0),
    "a.tar.bz2": bz2.compress(TAR),
    "a.tar.xz": lzma.compress(TAR),
}
WITH_SUMS = ("a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz")

NAMES = ("wiki.test.tokens", "x/wiki.valid.tokens", "x/y/readme", "z")
OUTSIDE = ("..", "../beside.txt", "x/../../x", "/tmp/x", "//x", "C:/x", "C:x", "..\\x", "\\x", "x\\..\\..\\y")
CLASHING = ("wiki.test.tokens", "./wiki.test.tokens", "wiki.test.tokens/", "wiki.test.tokens/x", "x", "x/")
STRANGE = ("", ".", "/", "~/x", "con", "…", "\udcff", "a\nb.tokens", "a\nb/wiki.test.tokens", "a\x1b[2J", "a\x00b")
LONG = ("n" * 300, "d/" * 300, "d/" * 1500 + "x")
_names = st.sampled_from(OUTSIDE + CLASHING + STRANGE + LONG) | st.text(max_size=12)
_sizes = st.sampled_from([-(2**40), -512, -1, 0, 1, 2**31, 2**40, 2**62, 2**63, 2**64 - 1])
_texts = st.sampled_from([b"", b"words\n", b"\xff"])
_UNIX = (0, 0o100644, 0o040755, 0o120777, 0o020666, 0o010644)  # nothing, file, folder, link, device, pipe
_KINDS = (b"\x00", b"1", b"2", b"3", b"5", b"6", b"7", b"K", b"L", b"S", b"g", b"x", b"Z")
_PAX = ("path", "size", "mtime", "linkpath", "hdrcharset", "GNU.sparse.map", "GNU.sparse.name", "GNU.sparse.major",
        "GNU.sparse.minor", "GNU.sparse.size", "GNU.sparse.numblocks", "GNU.sparse.realsize")  # fmt: skip
_said = st.sampled_from(["-1", "-512", "0", "1", "1e999", "nan", "../x", "/x", "9" * 30, "1,2,3", "0,9,-9,1", "x"])
_links = st.sampled_from(["../beside.txt", "/etc/passwd", "wiki.test.tokens", "l" * 200])


def _rarely(odd: st.SearchStrategy[Any], usual: Any) -> st.SearchStrategy[Any]:
    """One in five times something odd: where all is odd, the first thing hides the others."""
    return st.integers(0, 4).flatmap(lambda n: odd if n == 4 else st.just(usual))


@st.composite
def hostile_zip(draw: st.DrawFn) -> bytes:
    """Members that lie outside, are links or devices, come twice, or say that they are enormous."""
    members: list[tuple[zipfile.ZipInfo, bytes]] = []
    for name in NAMES[: draw(st.integers(1, 4))]:
        member = zipfile.ZipInfo(draw(_rarely(_names, name)).encode("utf-8", "replace").decode())
        member.create_system = draw(st.sampled_from([0, 3]))
        member.external_attr = draw(_rarely(st.sampled_from(_UNIX), 0o100644)) << 16
        members.append((member, draw(_rarely(_texts, ARTICLES["test"].encode()))))
    sizes = _rarely(_sizes.filter(lambda size: size >= 0), None)
    return zip_of(members, [draw(sizes) for _ in members])


@st.composite
def hostile_tar(draw: st.DrawFn) -> bytes:
    """The same, and with sizes below nothing, holes, and all that a header before the header can say."""
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    for name in NAMES[: draw(st.integers(1, 4))]:
        member, data = tar_member(draw(_rarely(_names, name)), draw(_rarely(_texts, ARTICLES["test"].encode())))
        member.type = draw(_rarely(st.sampled_from(_KINDS), b"0"))
        member.linkname = draw(_rarely(_links, ""))
        member.mode, member.mtime = draw(st.sampled_from([0o644, 0, 0o7777])), draw(st.sampled_from([0, -1, 2**62]))
        member.size = draw(_rarely(_sizes, member.size))
        said: dict[str, str] = draw(_rarely(st.dictionaries(st.sampled_from(_PAX), _said, max_size=3), {}))
        member.pax_headers = said
        members.append((member, data))
    return tar_of(members, tarfile.PAX_FORMAT if draw(st.booleans()) else tarfile.GNU_FORMAT)


def table() -> bytes:
    """A shard of WikiText, in two groups of rows."""
    rows = [line if line.strip() else "" for line in ARTICLES["valid"].splitlines(keepends=True)]
    file = io.BytesIO()
    parquet.write_table(pa.table({"text": rows}), file, row_group_size=8)
    return file.getvalue()
