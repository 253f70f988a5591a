"""Archives: what is in them is read, and nothing in them reaches beyond their own folder."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from infty.base.errors import InftyError, MissingError
from infty.corpora.archives import open_folder
from infty.corpora.imports import import_corpus
from infty.corpora.store import open_corpus
from tests.corpora.conftest import ARTICLES


def zip_of(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def tar_of(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_a_corpus_comes_out_of_an_archive(tmp_path: Path, data: Path, make: object) -> None:
    name = "wikitext-103-v1.zip" if make is zip_of else "wikitext-103-v1.tar.gz"
    path = make(tmp_path / name, {"wikitext-103/wiki.test.tokens": ARTICLES["test"]})  # pyright: ignore
    import_corpus(data, "wikitext", path, replace=False)
    assert open_corpus(data, "wikitext").splits["test"]["bytes"] == len(ARTICLES["test"].encode())
    assert not list(data.glob(".archive*"))


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize("name", ["../wiki.test.tokens", "a/../../x", "/tmp/x", "C:/x", "..\\x", "a/..\\..\\x"])
def test_members_that_reach_outside_are_refused_and_nothing_is_unpacked(
    tmp_path: Path, data: Path, make: object, name: str
) -> None:
    inside = {"wiki.test.tokens": ARTICLES["test"], name: "evil"}
    path = make(tmp_path / ("a.zip" if make is zip_of else "a.tgz"), inside)  # pyright: ignore
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MissingError, match=r"is refused: its member .* would fall outside"):
        import_corpus(data, "wikitext", path, replace=False)
    assert sorted(p for p in tmp_path.rglob("*") if data not in (p, *p.parents)) == before
    assert not list(data.iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, data: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("wiki.test.tokens")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(MissingError, match="is a link or a device"):
        import_corpus(data, "wikitext", path, replace=False)


def test_a_link_in_a_zip_is_refused(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("wiki.test.tokens")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(MissingError, match="is a link or a device"):
        import_corpus(data, "wikitext", path, replace=False)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK nonsense")
    with pytest.raises(MissingError, match="no archive that can be opened"):
        import_corpus(data, "wikitext", tmp_path / name, replace=False)


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_a_cut_or_altered_archive_is_refused(tmp_path: Path, data: Path, make: object) -> None:
    path = make(tmp_path / ("a.zip" if make is zip_of else "a.tgz"), {"wiki.test.tokens": ARTICLES["test"] * 99})  # pyright: ignore
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:60] + b"\xff" * 20 + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(MissingError):
            import_corpus(data, "wikitext", path, replace=False)
        assert not list(data.glob("*wikitext"))


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        member = tarfile.TarInfo("wiki.test.tokens")
        member.size = 10**13
        file.write(member.tobuf(format=tarfile.GNU_FORMAT))
        file.truncate(512 + member.size + 1024)  # a hole, which takes no room here
    with pytest.raises(InftyError, match=r"unpacks to 10,000,000 MB"), open_folder(path, data):
        pass


def test_a_tar_that_ends_too_early_is_refused(tmp_path: Path, data: Path) -> None:
    """Cut or altered where its second member begins: tarfile itself takes that for a shorter archive."""
    tar_of(tmp_path / "a.tgz", {"wiki.test.tokens": ARTICLES["test"], "wiki.valid.tokens": ARTICLES["valid"]})
    whole = gzip.decompress((tmp_path / "a.tgz").read_bytes())
    second = 1024
    assert whole[second:].startswith(b"wiki.valid")
    head, rest = whole[second : second + 512], whole[second + 512 :]
    for damaged in (b"", head[:99], b"?" + head[1:] + rest, bytes(512) + rest):
        (tmp_path / "a.tar").write_bytes(whole[:second] + damaged)
        with pytest.raises(MissingError, match="no archive that can be opened safely"):
            import_corpus(data, "wikitext", tmp_path / "a.tar", replace=False)


def test_a_sum_that_does_not_fit_is_refused(tmp_path: Path, data: Path) -> None:
    """It stands at the end of the file, behind all members."""
    path = tar_of(tmp_path / "a.tgz", {"wiki.test.tokens": ARTICLES["test"]})
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with pytest.raises(MissingError, match="CRC check failed"):
        import_corpus(data, "wikitext", path, replace=False)


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize(
    ("name", "why"),
    [("d/" * 400 + "x", "lies more than 32 folders deep"), ("./wiki.test.tokens", "it has two members")],
)
def test_members_that_no_corpus_has_are_refused(tmp_path: Path, data: Path, make: object, name: str, why: str) -> None:
    path = make(tmp_path / ("a.zip" if make is zip_of else "a.tgz"), {"wiki.test.tokens": "x", name: "y"})  # pyright: ignore
    with pytest.raises(MissingError, match=why) as caught:
        import_corpus(data, "wikitext", path, replace=False)
    assert len(str(caught.value)) < 300
    assert not list(data.iterdir())


def test_what_is_wrong_inside_is_told_with_the_archive_s_name(tmp_path: Path, data: Path) -> None:
    path = tar_of(tmp_path / "a.tgz", {"a\nb/wiki.test.tokens": ""})
    with pytest.raises(MissingError) as caught:
        import_corpus(data, "pg19", path, replace=False)
    assert str(caught.value).startswith(f"{path} is not this corpus")
    assert str(caught.value).endswith(r"left out: 1 of another kind or place (a\nb/wiki.test.tokens)")


def test_names_that_no_file_can_have_are_not_there(data: Path) -> None:
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(MissingError, match="is not there"):
            import_corpus(data, "wikitext", Path(name), replace=False)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_holds_what_tarfile_reads(tmp_path: Path, data: Path, format: int) -> None:
    """Long names, other letters, folders, empty files, and a header for all members, as git writes one."""
    long = "/".join(["folder" * 8] * 2) + "/"
    contents = {"a.txt": b"x" * 511, "é.txt": b"y" * 512, long + "b.txt": b"z" * 513, "leer.txt": b"", "n" * 90: b"9"}
    if format != tarfile.USTAR_FORMAT:
        contents |= {"é" * 120: b"long", long * 3 + "c.txt": b"longer"}
    path = tmp_path / "a.tar"
    said = {"comment": "of all"} if format == tarfile.PAX_FORMAT else {}
    with tarfile.open(path, "w", format=format, pax_headers=said) as archive:
        folder = tarfile.TarInfo("empty folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, text in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(text), 1.5
            archive.addfile(member, io.BytesIO(text))
    with open_folder(path, data) as inside:
        assert {str(p.relative_to(inside)): p.read_bytes() for p in inside.rglob("*") if p.is_file()} == contents
        assert (inside / "empty folder").is_dir()
    with tarfile.open(path) as archive:
        assert {m.name for m in archive if m.isfile()} == contents.keys()


@pytest.mark.parametrize(("goes_on", "why"), [(False, "is a file with holes"), (True, "no archive that can be opened")])
def test_a_file_of_holes_is_refused(tmp_path: Path, data: Path, goes_on: bool, why: str) -> None:
    """A byte, and behind it as many zeros as the header says; or a header that goes on where the archive ends."""
    member = tarfile.TarInfo("wiki.test.tokens")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 1
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410], header[482], header[483:495] = b"%011o\0%011o\0" % (0, 1), goes_on, b"%011o\0" % 2**32
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(0 if goes_on else 1536))
    with pytest.raises(MissingError, match=why):
        import_corpus(data, "wikitext", tmp_path / "a.tar", replace=False)
    assert not list(data.iterdir())
