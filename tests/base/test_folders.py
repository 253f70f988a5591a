"""Folders are walked as `ls` would: links too; in order, and each once."""

from pathlib import Path

from infty.base.folders import walk_folder


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    """As sorted paths do: what is in `a` comes before `a.txt`, and before `a-b`."""
    for name in ("a.txt", "a/z", "a-b/c", "B", "a/b/c", "ä"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list(walk_folder(tmp_path))
    assert found == sorted(found) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_each_folder_is_entered_once_whatever_leads_to_it(tmp_path: Path) -> None:
    for name in ("top/in/file", "beside/other"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    for link, goal in (("top/in/up", ".."), ("top/in/self", "."), ("top/x", "../beside"), ("beside/back", "../top")):
        (tmp_path / link).symlink_to(goal)
    (tmp_path / "top/y").symlink_to("x")
    (tmp_path / "top/loop").symlink_to("loop")
    left: list[tuple[str, str]] = []
    found = list(walk_folder(tmp_path / "top", lambda path, why: left.append((path.name, why))))
    assert [str(path.relative_to(tmp_path / "top")) for path in found] == ["in/file", "loop", "x/other"]
    assert left == [
        ("self", "linked to a folder above"),
        ("up", "linked to a folder above"),
        ("back", "here already by another name"),
        ("y", "here already by another name"),
    ]


def test_a_folder_that_is_named_is_entered_though_it_is_hidden_or_linked(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "file").touch()
    (tmp_path / "link").symlink_to(".cache")
    for name in (".cache", "link"):
        assert list(walk_folder(tmp_path / name)) == [tmp_path / name / "file"]
