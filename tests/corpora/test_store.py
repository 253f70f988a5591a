"""Imported corpora: counted right, whole or not there, and refused when they are no longer what they were."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from infty.base import locks
from infty.base.errors import InftyError, MissingError, UsageError
from infty.corpora.contents import Contents
from infty.corpora.imports import import_corpus, own_name
from infty.corpora.inventory import inventory, verify
from infty.corpora.layouts import Source, find_pg19, find_wikitext
from infty.corpora.registry import KNOWN
from infty.corpora.store import open_corpus, write_corpus
from tests.conftest import Infty, clean_environment
from tests.corpora.conftest import ARTICLES, BOOKS, Import, pg19_folder, wikitext_folder


def test_wikitext_is_counted_with_a_line_end_a_line(tmp_path: Path, make_corpus: Import) -> None:
    corpus = make_corpus("wikitext", find_wikitext(Contents(wikitext_folder(tmp_path / "in"))))
    for split, text in (("validation", ARTICLES["valid"]), ("test", ARTICLES["test"])):
        counts = corpus.splits[split]
        assert (counts["words"], counts["lines"]) == (len(text.split()), text.count("\n"))
        assert counts["bytes"] == len(text.encode())
        assert (corpus.path / f"{split}.txt").read_text(encoding="utf-8") == text
        assert corpus.words(corpus.documents(split)) == len(text.split()) + text.count("\n")
    assert [d.name for d in corpus.documents("validation")] == ["First article", "Second = article"]
    assert [d.lines for d in corpus.documents("validation")] == [8, 5]
    assert sorted(corpus.splits) == ["test", "validation"]


def test_books_keep_their_titles_and_texts(tmp_path: Path, make_corpus: Import) -> None:
    corpus = make_corpus("pg19", find_pg19(Contents(pg19_folder(tmp_path / "in"))))
    books = list(BOOKS["train"].values())
    documents = corpus.documents("train")
    assert [d.name for d in documents] == ["Darkness, by A. Writer", "10", "100"]
    assert ["".join(corpus.text(d, "train")) for d in documents] == books
    assert [d.words for d in documents] == [len(book.split()) for book in books]
    assert corpus.words(documents) == sum(len(book.split()) for book in books)  # line ends are no words here


def test_words_are_counted_across_pieces(data: Path) -> None:
    cut = [
        (True, "one tw"),
        (False, "o"),
        (False, " three\n"),
        (False, "four"),
        (False, ""),
        (False, " "),
        (False, "5"),
    ]
    corpus = write_corpus(data, "x", {"train": Source(iter(cut), 1)}, "a test", replace=False)
    assert corpus.splits["train"]["words"] == 5


def test_the_same_import_again_changes_nothing_and_another_is_refused(tmp_path: Path, data: Path) -> None:
    folder = wikitext_folder(tmp_path / "in")
    import_corpus(data, "wikitext", folder, replace=False)
    before = (data / "wikitext" / "MANIFEST.json").stat().st_mtime_ns
    import_corpus(data, "wikitext", folder, replace=False)
    assert (data / "wikitext" / "MANIFEST.json").stat().st_mtime_ns == before
    (folder / "wiki.test.tokens").write_text(" = Other = \n")
    with pytest.raises(UsageError, match="has another text as test; --replace"):
        import_corpus(data, "wikitext", folder, replace=False)
    assert open_corpus(data, "wikitext").splits["test"]["words"] == len(ARTICLES["test"].split())
    import_corpus(data, "wikitext", folder, replace=True)
    assert open_corpus(data, "wikitext").splits["test"]["words"] == 3


@pytest.mark.parametrize("name", ["Upper", "../x", "", "a b", "generated"])
def test_names_that_can_not_be(tmp_path: Path, data: Path, name: str) -> None:
    with pytest.raises(UsageError):
        import_corpus(data, name, wikitext_folder(tmp_path / "in"), replace=False)


def test_what_fails_leaves_nothing(tmp_path: Path, data: Path) -> None:
    folder = wikitext_folder(tmp_path / "in")
    (folder / "wiki.test.tokens").write_bytes(b"words \xff\xfe\n")
    with pytest.raises(MissingError, match=r"wiki\.test\.tokens is no UTF-8 text: byte 6"):
        import_corpus(data, "wikitext", folder, replace=False)
    (folder / "wiki.test.tokens").write_text("")
    with pytest.raises(MissingError, match="the test split holds no text"):
        import_corpus(data, "wikitext", folder, replace=False)
    assert left(data) == []


def test_a_full_disk_leaves_nothing_and_the_old_one_good(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real limit of the system on how large a file may grow, which fails as a full disk does."""
    folder = wikitext_folder(tmp_path / "in")
    import_corpus(data, "wikitext", folder, replace=False)
    big = tmp_path / "big"
    big.mkdir()
    (big / "wiki.test.tokens").write_text("word " * 100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(InftyError, match=r"could not be made .*[Ff]ile too large.*nothing was left there"):
            import_corpus(data, "wikitext", big, replace=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert left(data) == ["wikitext"]
    verify(data, ["wikitext"]).refuse_faults()


def left(data: Path) -> list[str]:
    """What an import leaves but its lock."""
    return sorted(path.name for path in data.iterdir() if not path.name.endswith(".lock")) if data.exists() else []


STOPPED = """
import os, signal, sys
from pathlib import Path
from infty.corpora import store
from infty.corpora.imports import import_corpus
kind, when = sys.argv[3], sys.argv[4]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind it without one
written = store.write_manifest
def write_manifest(*given):
    if when == "before": os.kill(os.getpid(), getattr(signal, kind))
    written(*given)
def write_json(*given):
    os.kill(os.getpid(), getattr(signal, kind))
store.write_manifest = write_manifest
if when == "manifest": store.write_json = write_json
import_corpus(Path(sys.argv[1]), "wikitext", Path(sys.argv[2]), replace=False)
"""


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize("when", ["before", "manifest"])
def test_a_killed_import_leaves_nothing_that_looks_finished(tmp_path: Path, data: Path, kind: str, when: str) -> None:
    """A real process, killed with everything written but the manifest."""
    folder = wikitext_folder(tmp_path / "in")
    command = [sys.executable, "-c", STOPPED, str(data), str(folder), kind, when]
    done = subprocess.run(command, capture_output=True, env=clean_environment(tmp_path))
    assert done.returncode != 0
    assert not (data / "wikitext").exists()
    with pytest.raises(MissingError, match="no corpus 'wikitext'"):
        open_corpus(data, "wikitext")
    assert [entry.state for entry in inventory(data) if entry.name == "wikitext"] == ["missing"]
    import_corpus(data, "wikitext", folder, replace=False)  # the same command again
    assert left(data) == ["wikitext"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_an_import_with_one_line_and_its_exit_code(tmp_path: Path, number: int, code: int) -> None:
    """Sent while the import waits for the text, which comes through a pipe that nobody writes to."""
    folder = tmp_path / "in" / "test"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "1.txt")
    command = [sys.executable, "-m", "infty", "data", "import", "pg19", "in"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as process:
        with (folder / "1.txt").open("w"):  # opens once the import reads
            process.send_signal(number)
            assert process.wait(timeout=60) == code
        assert process.stderr is not None
        assert process.stderr.read() == f"infty: stopped by {signal.Signals(number).name}\n"
    assert left(tmp_path / "corpora") == []


def test_one_import_waits_for_another(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0)
    data.mkdir()
    with (
        FileLock(data / ".wikitext.lock"),
        pytest.warns(UserWarning, match="waiting for another process"),
        pytest.raises(InftyError, match="for too long"),
    ):
        import_corpus(data, "wikitext", wikitext_folder(tmp_path / "in"), replace=False)


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_a_damaged_file_is_refused_and_verify_names_it(tmp_path: Path, data: Path, damage: str) -> None:
    import_corpus(data, "wikitext", wikitext_folder(tmp_path / "in"), replace=False)
    path = data / "wikitext" / "test.txt"
    text = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(text[:-1] if damage == "truncated" else text.replace(b"dog", b"god"))
    with pytest.raises(MissingError, match=r"test\.txt is not what was imported; get it with: infty data fetch"):
        open_corpus(data, "wikitext").check("test.txt")
    with pytest.raises(MissingError, match=r"test\.txt is damaged or missing"):
        verify(data, []).refuse_faults()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": 1}', '{"schema": 99, "files": {}, "splits": {}, "source": ""}']
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, data: Path, text: str) -> None:
    import_corpus(data, "wikitext", wikitext_folder(tmp_path / "in"), replace=False)
    (data / "wikitext" / "MANIFEST.json").write_text(text)
    with pytest.raises(MissingError, match="infty data import wikitext"):
        open_corpus(data, "wikitext")
    assert [entry.state for entry in inventory(data) if entry.name == "wikitext"] == ["damaged"]


def test_counts_that_do_not_fit_the_documents_are_found_and_mended(tmp_path: Path, data: Path) -> None:
    """All sums are right, also in a manifest that someone wrote anew."""
    folder = wikitext_folder(tmp_path / "in")
    import_corpus(data, "wikitext", folder, replace=False)
    path = data / "wikitext" / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["test"]["words"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(MissingError, match=r"test\.documents\.json is damaged or missing; get it with"):
        verify(data, []).refuse_faults()
    with pytest.raises(MissingError, match=r"test\.documents\.json is not what was imported; get it with"):
        open_corpus(data, "wikitext").documents("test")
    import_corpus(data, "wikitext", folder, replace=False)
    found = verify(data, [])
    assert (len(found.whole), found.faults) == (4, [])


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("name", ["mine", "gpt2"])
def test_a_folder_that_is_no_corpus_is_left_alone(tmp_path: Path, data: Path, name: str, replace: bool) -> None:
    """One's texts may lie in the data folder, under the very name that they are imported as."""
    (data / name).mkdir(parents=True)
    (data / name / "my.txt").write_text("line\n" * 99)
    with pytest.raises(UsageError, match=rf"{name} is there already and is no corpus; move it away"):
        import_corpus(data, name, data / name, replace=replace)
    assert [path.name for path in (data / name).iterdir()] == ["my.txt"]


def test_a_corpus_that_made_way_comes_back(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new one can't take its place, and where a process was killed between the two renames."""
    folder = wikitext_folder(tmp_path / "in")
    import_corpus(data, "wikitext", folder, replace=False)
    (folder / "wiki.test.tokens").write_text(" = Other = \n")
    move = Path.replace

    def full(self: Path, target: Path) -> Path:
        if self.name == ".wikitext.tmp":
            raise OSError(28, "No space left on device")
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(InftyError, match="No space left on device"):
            import_corpus(data, "wikitext", folder, replace=True)
    assert open_corpus(data, "wikitext").splits["test"]["words"] == len(ARTICLES["test"].split())
    (data / "wikitext").rename(data / ".wikitext.old.tmp")
    assert {entry.name for entry in inventory(data)} == set(KNOWN)
    (folder / "wiki.valid.tokens").unlink()
    import_corpus(data, "wikitext", folder, replace=True)
    assert {split: counts["words"] for split, counts in open_corpus(data, "wikitext").splits.items()} == {
        "validation": len(ARTICLES["valid"].split()),
        "test": 3,
    }
    assert left(data) == ["wikitext"]


def test_own_texts_have_another_name_whenever_they_change(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "Meine Texte é"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(name)
    name = own_name(folder)
    assert name.startswith("text-meine-texte-")
    assert own_name(folder) == name
    (folder / "b.txt").write_text("other")
    assert own_name(folder) != name
    import_corpus(data, own_name(folder), folder, replace=False)
    assert own_name(folder) in [entry.name for entry in inventory(data)]


LONG_LINE = 300_000_000


@pytest.mark.slower
def test_a_line_of_300_mb_is_imported_in_bounded_memory(tmp_path: Path) -> None:
    """In a fresh process, whose greatest memory the system tells."""
    source = tmp_path / "one.txt"
    word = b"word and another " * 1000
    with source.open("wb") as file:
        for _ in range(LONG_LINE // len(word)):
            file.write(word)
    script = (
        "import re, sys\nfrom pathlib import Path\n"
        "from infty.corpora.imports import import_corpus\n"
        "c = import_corpus(Path(sys.argv[1]), 'long', Path(sys.argv[2]), replace=False)\n"
        "status = Path('/proc/self/status').read_text()\n"  # its own most: getrusage begins with the parent's
        "print(sum(s['words'] for s in c.splits.values()), re.search(r'VmHWM:\\s+(\\d+)', status)[1])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(tmp_path))
    words, kilobytes = map(int, done.stdout.split())
    assert abs(words - 3 * 1000 * (LONG_LINE // len(word))) <= 2  # two cuts between the splits, where no line ends
    assert kilobytes < 300_000
    os.remove(source)


def test_the_commands_as_a_user_types_them(infty: Infty, tmp_path: Path) -> None:
    wikitext_folder(tmp_path / "my copy é")
    done = infty("data", "import", "wikitext", "my copy é", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["test"]["documents"] == 1
    listed = infty("data", "list")
    assert "| wikitext | here | test | 1 | 10 | 6 |" in listed.stdout
    assert "CC BY-SA 3.0" in listed.stdout
    assert infty("data", "verify").stdout == "4 files are what they were\n"
    (tmp_path / "corpora/wikitext/test.txt").write_text("else")
    done = infty("data", "verify", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, len(found["whole"]), len(found["faults"])) == (3, 3, 1)
    assert done.stderr == f"infty: {found['faults'][0]}\n"
    for words, code, message in (
        (("import", "wikitext", "nowhere"), 3, "nowhere is not there"),
        (("import", "pg19", "my copy é"), 3, "my copy é is not this corpus"),
        (("fetch", "wikitex"), 2, "did you mean wikitext?"),
        (("verify", "pg19"), 3, "no corpus 'pg19'"),
    ):
        done = infty("data", *words)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1
