"""Folders as people have them: what is taken of each, and what is left out, in the words of an import."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from infty.corpora.imports import import_corpus, own_name
from tests.conftest import Infty

Files = dict[str, str | bytes]
NAMES = ["ann.txt", "bob.txt", "eve.txt"]
NOTES: Files = {name: f"{name[:3]}, and what {name[:3]} thought of it\n" for name in NAMES}


def fill(folder: Path, files: Files) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def add_links(folder: Path) -> None:
    """A folder on another disk, a way back, a file under a second name, and what was moved away."""
    fill(folder.parent / "disk", {"zoe.txt": "zoe\n", "deep/uma.txt": "uma\n"})
    (folder / "more").symlink_to("../disk")
    (folder / "again").symlink_to("../disk/deep")
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to("..")
    (folder / "all").symlink_to("/")
    (folder / "ann-too.txt").symlink_to("ann.txt")
    (folder / "gone.txt").symlink_to("nowhere.txt")


def add_own_work(folder: Path) -> None:
    """What infty writes for one who works in the folder of the texts."""
    import_corpus(folder / "data", "mine", folder, replace=False)
    fill(folder, {"report/text-smoke.md": "| model |\n", "report/.pictures.json": "{}"})
    run = "runs/text/smoke/infty@main/seed-0"
    fill(folder, {f"{run}/config.yaml": "", f"{run}/status.json": "", f"{run}/wandb/files/requirements.txt": "torch\n"})


def add_nothing(_folder: Path) -> None:
    return


FOLDERS: dict[str, tuple[Files, Callable[[Path], None], list[str], str]] = {
    "of notebooks": (
        {"work.ipynb": "{}", ".ipynb_checkpoints/eve-checkpoint.txt": NOTES["eve.txt"], ".jupyter/x.md": "x\n"},
        add_nothing,
        NAMES,
        "2 hidden (.ipynb_checkpoints/, .jupyter/), 1 of another kind or place (work.ipynb)",
    ),
    "of a Mac": (
        {"._ann.txt": b"\x00\x05\x16\x07\xff", ".DS_Store": b"\x00Bud1", "__MACOSX/._ann.txt": "x", "Icon\r": b""},
        add_nothing,
        NAMES,
        r"2 hidden (.DS_Store, ._ann.txt), 1 made by a system (__MACOSX/), 1 of another kind or place (Icon\r)",
    ),
    "of Windows": (
        {
            "ann - Copy.txt": b"\xef\xbb\xbfann, and what ann thought of it\r\n",
            "Thumbs.db": b"\xd0\xcf",
            "desktop.ini": "[x]\r\n",
            "$RECYCLE.BIN/S-1-5/$R1.txt": "thrown away\r\n",
            "~$ann.docx": b"\x00",
        },
        add_nothing,
        ["ann - Copy.txt", "bob.txt", "eve.txt"],
        "1 made by a system ($RECYCLE.BIN/), 1 with the text of another file (ann.txt = ann - Copy.txt), "
        "3 of another kind or place (Thumbs.db, desktop.ini, ~$ann.docx)",
    ),
    "of links": (
        {},
        add_links,
        ["again/uma.txt", "ann-too.txt", "bob.txt", "eve.txt", "more/zoe.txt"],
        "2 linked to a folder above (all/, sub/up/), 1 here already by another name (more/deep/), "
        "1 with the text of another file (ann.txt = ann-too.txt), 1 linked to what is not there (gone.txt)",
    ),
    "of many suffixes": (
        {"A.TXT": "a\n", "b.Md": "b\n", "c.text": "c\n", "d.txt.gz": b"\x1f\x8b", "e": "e\n", "f.csv": "f\n"},
        add_nothing,
        ["A.TXT", *NAMES[:1], "b.Md", *NAMES[1:]],
        "4 of another kind or place (c.text, d.txt.gz, e, …)",
    ),
    "nested": (
        {"1/2/3/x.txt": "x\n", "1/y.md": "y\n", ".git/d.txt": "d\n", "1/.venv/lib/top_level.txt": "torch\n"},
        add_nothing,
        ["1/2/3/x.txt", "1/y.md", *NAMES],
        "2 hidden (.git/, 1/.venv/)",
    ),
    "of empty files": (
        {"0.txt": "", "blank.txt": " \r\n\n", "mark.md": b"\xef\xbb\xbf", "space/0.TXT": ""},
        add_nothing,
        NAMES,
        "4 empty (0.txt, blank.txt, mark.md, …)",
    ),
    "of copies": (
        {"old/ann.txt": NOTES["ann.txt"], "eve (1).txt": NOTES["eve.txt"], "Copy of bob.txt": NOTES["bob.txt"]},
        add_nothing,
        ["Copy of bob.txt", "ann.txt", "eve (1).txt"],
        "3 with the text of another file (bob.txt = Copy of bob.txt, eve.txt = eve (1).txt, old/ann.txt = ann.txt)",
    ),
    "of infty's own work": (
        {},
        add_own_work,
        NAMES,
        "1 hidden (data/.mine.lock), 3 made by infty (data/mine/, report/, runs/text/smoke/infty@main/seed-0/)",
    ),
    "of editors": (
        {"ann.txt~": "a\n", "#bob.txt#": "b\n", ".eve.txt.swp": b"b0VIM", "ann.txt.bak": "a\n", "@eaDir/ann.txt": "x"},
        add_nothing,
        NAMES,
        "1 hidden (.eve.txt.swp), 1 made by a system (@eaDir/), "
        "3 of another kind or place (#bob.txt#, ann.txt.bak, ann.txt~)",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_of_a_folder_each_text_is_taken_once_and_the_rest_is_told(infty: Infty, tmp_path: Path, kind: str) -> None:
    files, add, taken, left_out = FOLDERS[kind]
    folder = fill(tmp_path / "own", {**NOTES, **files})
    add(folder)
    done = infty("data", "import", "mine", "own", "--folder", "out", "--json")
    assert done.returncode == 0, done.stderr
    parts = {
        split: (tmp_path / f"out/mine/{split}.documents.json").read_text() for split in ("train", "validation", "test")
    }
    names = [document["name"] for part in parts.values() for document in json.loads(part)["documents"]]
    assert names == [Path(name).name for name in taken]
    size = sum(counts["bytes"] for counts in json.loads(done.stdout)["splits"].values())
    count = len(taken)
    took = f"{count} files, {count} documents (train {count - 2}, validation 1, test 1), {size} bytes"
    assert done.stderr == f"mine: took {took}; left out: {left_out}\n"


def test_what_jupyter_keeps_of_a_text_is_not_trained_on(infty: Infty, tmp_path: Path) -> None:
    """Its copy sorts before all texts, and so fell to the training part (bghira/SimpleTuner issue 94)."""
    texts: Files = {f"{i}.txt": f"{i}: " + f"the cat of {i} sat on the mat. " * 40 for i in range(4)}
    fill(tmp_path / "own", {**texts, ".ipynb_checkpoints/3-checkpoint.txt": texts["3.txt"]})
    done = infty("train", "text", "--data", "own", "--scale", "smoke")
    assert done.returncode == 0, done.stderr
    assert "took 4 files, 4 documents (train 2, validation 1, test 1)" in done.stderr
    assert "left out: 1 hidden (.ipynb_checkpoints/)" in done.stderr
    [corpus] = (tmp_path / "corpora").glob("text-own-*")
    assert texts["3.txt"] == (corpus / "test.txt").read_text() not in (corpus / "train.txt").read_text()


def test_texts_keep_their_name_when_infty_works_in_their_folder(infty: Infty, tmp_path: Path) -> None:
    """Corpora, runs and reports hold texts as well: another name would be another run, with tests to train on."""
    fill(tmp_path, NOTES)
    name, cell = own_name(tmp_path), ("text", "--data", ".", "--scale", "smoke")
    for words in (("train", *cell), ("report",), ("eval", *cell)):
        done = infty(*words, INFTY_DATA="data")
        assert done.returncode == 0, done.stderr
    assert own_name(tmp_path) == name
    assert [path.name for path in (tmp_path / "data").glob("[!.]*")] == [name]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"b.txt": "bee\n", "a.md": "ay\n", "sub/c.txt": "sea\n"}, "text-own-f50931aa"),
        ({"one.txt": "line\n" * 99, "x.csv": "1"}, "text-own-7b8c718e"),
    ],
)
def test_an_ordinary_folder_has_the_name_that_its_runs_have(tmp_path: Path, files: Files, name: str) -> None:
    """As 0.1.0 named it: another name would orphan them."""
    assert own_name(fill(tmp_path / "own", files)) == name
