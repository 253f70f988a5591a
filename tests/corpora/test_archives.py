"""Archives: what is in them is read, and nothing in them reaches beyond their own folder."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from infty.corpora.archives import opened
from infty.corpora.imports import import_corpus
from infty.corpora.store import open_corpus
from infty.errors import InftyError, MissingError
from tests.corpora.conftest import ARTICLES, QUIET


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
    import_corpus(data, "wikitext", path, QUIET, replace=False)
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
        import_corpus(data, "wikitext", path, QUIET, replace=False)
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
        import_corpus(data, "wikitext", path, QUIET, replace=False)


def test_a_link_in_a_zip_is_refused(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("wiki.test.tokens")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(MissingError, match="is a link or a device"):
        import_corpus(data, "wikitext", path, QUIET, replace=False)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK nonsense")
    with pytest.raises(MissingError, match="no archive that can be opened"):
        import_corpus(data, "wikitext", tmp_path / name, QUIET, replace=False)


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_a_cut_or_altered_archive_is_refused(tmp_path: Path, data: Path, make: object) -> None:
    path = make(tmp_path / ("a.zip" if make is zip_of else "a.tgz"), {"wiki.test.tokens": ARTICLES["test"] * 99})  # pyright: ignore
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:60] + b"\xff" * 20 + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(MissingError):
            import_corpus(data, "wikitext", path, QUIET, replace=False)
        assert not list(data.glob("*wikitext"))


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        member = tarfile.TarInfo("wiki.test.tokens")
        member.size = 10**13
        file.write(member.tobuf(format=tarfile.GNU_FORMAT))
        file.truncate(512 + member.size + 1024)  # a hole, which takes no room here
    with pytest.raises(InftyError, match=r"unpacks to 10,000,000 MB"), opened(path, data):
        pass
