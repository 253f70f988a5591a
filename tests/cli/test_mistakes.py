"""Mistakes that people make: each ends with one message that says what to do, its exit code, and nothing written."""

import shutil
from pathlib import Path

import pytest

from infty.config.definition import SHIPPED
from tests.conftest import Infty

EXPERIMENTS = (
    "first-seen, gpt2, gpt2-memories, pg19, recall, recall-text, sort, sort-ablation, sort-basis, sort-memories, "
    "sort-stretch, text, wikitext, wikitext-ablation, wikitext-memories"
)
MISTAKES = [
    ("train doubled.yaml", 2, "doubled.yaml: steps: stands twice (line "),
    ("train cut.yaml", 2, "cut.yaml: wanted a mapping of task, model, training, "),
    ("train list.yaml", 2, "list.yaml: wanted a mapping of task, model, training, "),
    ("train latin.yaml", 2, "latin.yaml: can't be read: 'utf-8' codec can't decode byte 0xff"),
    ("train none", 2, f"no experiment 'none'; there is {EXPERIMENTS}"),
    ("train sort --set training.steps", 2, "--set: training.steps: wanted key.path=value"),
    ("train sort --set =3", 2, "--set: =3: wanted key.path=value"),
    ("train sort --set training.steps=0", 2, "--set: training.steps: must be greater than 0, got 0"),
    ("train sort --set model.num_heads=7", 2, "hidden_size 64 is not a multiple of num_heads 7"),
    ("train sort --seed 99999999999", 2, "Invalid value for '--seed'"),
    ("train sort --threads 0", 2, "Invalid value for '--threads'"),
    ("train sort --device cuda:63", 2, "device cuda:63: torch sees "),
    ("train text --data none", 3, "none holds no text: wanted files named *.txt or *.md that are not empty"),
    ("train text --data missing", 3, "missing is not there: wanted a folder of text files, or one text file"),
    ("show sort --set model.long_range.kind=x", 2, "wanted kind: 'long_term', 'compressive', 'mean', "),
    ("eval sort --knock-out all", 2, "Invalid value for '--knock-out'"),
    ("eval sort --stream letters.txt", 3, "nothing trained yet in "),
    ("eval sort --stream letters.txt --split test", 2, "--split has no meaning with --stream, which reads one text as"),
    ("report --check --out a", 2, "--out has no meaning with --check, which writes nothing"),
    ("report --check --format md", 2, "--format has no meaning with --check, which writes nothing"),
    ("report --check --keep kept", 2, "--keep has no meaning with --check, which writes nothing"),
    ("report none --format md,,html", 2, "--format : wanted some of md, tex, csv, html"),
    ("generate sort --prompt a", 2, "sort has no text to continue: use an experiment on texts, as wikitext"),
    ("report none", 3, "no finished runs in none; make one with: infty train sort --case x8"),
    ("report --keep runs", 2, "which is reported on: choose a folder outside of it"),
    ("compare a", 2, "compare wants two runs or more, for example: infty compare RUN RUN"),
    ("compare a b", 3, "a is no run: wanted a folder with config.yaml, here or below "),
    ("export a", 3, "a is no run: wanted a folder with config.yaml, here or below "),
    ("clean a --yes", 3, "a is no run: wanted a folder with config.yaml, here or below "),
    ("tune text", 2, "text.yaml states nothing to tune; for example scales.laptop.tune: {main: "),
    ("tune sort --case x5", 2, "sort.yaml: scales.laptop.tune has no grid for 'x5'; there is x8"),
    ("reproduce nothing", 2, f"no experiment 'nothing'; there is {EXPERIMENTS}"),
    ("reproduce sort --jobs 0", 2, "Invalid value for '--jobs'"),
    ("data import wikitext none", 3, "none is not this corpus: wanted wiki.train.tokens, wiki.valid.tokens, "),
    ("data import wikitext not.zip", 3, "not.zip is no archive that can be opened safely: File is not a zip file"),
    ("data verify nothing", 3, "; give your own files with: infty train text --data FOLDER"),
    ("data fetch nothing", 2, "no corpus 'nothing' on the hub; there is wikitext, pg19, gpt2, generated"),
    ("bench nothing", 2, "no measure 'nothing'; there is step, read, update, stream, data, beside, generate, start"),
    ("bench step --against none", 3, "--against none: there is no such file"),
]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, bytes]:
    """Files as people have them: an experiment with faults, a folder without texts, what is no archive."""
    experiment = (SHIPPED / "sort.yaml").read_text(encoding="utf-8")
    files = {
        "doubled.yaml": experiment.replace("\ntraining:\n", "\ntraining:\n  steps: 3\n", 1).encode(),
        "cut.yaml": experiment[:300].encode(),
        "list.yaml": b"- a\n",
        "latin.yaml": b"a\xff\xfe",
        "letters.txt": b"1 2 x 3",
        "not.zip": b"no",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "none").mkdir()
    return files


@pytest.mark.parametrize(("words", "code", "message"), MISTAKES)
def test_a_mistake_is_told_in_one_message_and_loses_nothing(
    infty: Infty, tmp_path: Path, given: dict[str, bytes], words: str, code: int, message: str
) -> None:
    done = infty(*words.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(("infty: ", "Usage: "))
    shutil.rmtree(tmp_path / ".cache", ignore_errors=True)
    left = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in left.items()} == given


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("eval sort --split foo", "Invalid value for '--split': 'foo' is not one of 'test', 'validation'."),
        ("train sort --threads x", "Invalid value for '--threads': wanted an integer, got 'x'"),
        ("train sort --seed -1", "Invalid value for '--seed': must be greater than or equal to 0, got '-1'"),
        ("generate sort --temperature hot", "Invalid value for '--temperature': wanted a number, got 'hot'"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_a_users_words(infty: Infty, words: str, said: str) -> None:
    done = infty(*words.split())
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("command", ["list", "clean"])
def test_a_folder_of_runs_that_is_not_there_is_told(infty: Infty, tmp_path: Path, command: str) -> None:
    told = "infty: warning: no folder nowhere: --runs names one that holds runs\n"
    done = infty(command, "--runs", "nowhere")
    assert (done.returncode, done.stderr) == (0, told)
    assert infty(command).stderr == ""  # before the first run there is none
    (tmp_path / "nowhere").mkdir()
    assert infty(command, "--runs", "nowhere").stderr == ""


def test_a_finished_run_whose_result_is_damaged_is_not_called_finished(infty: Infty, tmp_path: Path) -> None:
    words = ("train", "sort", "--scale", "smoke", "--case", "x4")
    assert infty(*words).returncode == 0
    (tmp_path / "runs/sort/smoke/infty@x4/seed-0/result.json").write_text("{")
    done = infty(*words)
    assert done.returncode == 3
    assert done.stderr.startswith("infty: ")
    assert len(done.stderr.splitlines()) == 1
    assert "train again with --fresh" in done.stderr
