"""`--json` is what docs/cli.md says of it: the same keys, one document, for every command that is listed."""

import json
import re
from pathlib import Path

import pytest

from tests.commands.reproduce.own import write_experiment
from tests.conftest import Infty

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
CELL = ("sort", "--scale", "smoke")
RUNS = ("sort/smoke/infty@x4/seed-0", "sort/smoke/infty@x4/seed-1")
WORDS = {  # what each line of the table is asked with, in this order
    "train --dry-run": ("train", *CELL, "--dry-run"),
    "train": ("train", *CELL),
    "eval": ("eval", *CELL),
    "eval --check-batch": ("eval", *CELL, "--check-batch"),
    "eval --stream": ("eval", *CELL, "--stream", "stream.txt"),
    "report": ("report",),
    "report --check": ("report", "--check"),
    "list": ("list",),
    "show": ("show", "sort"),
    "compare": ("compare", *RUNS),
    "export": ("export", RUNS[0]),
    "clean": ("clean",),
    "env": ("env",),
    "reproduce": ("reproduce", "mine", "--scale", "smoke"),
    "reproduce --dry-run": ("reproduce", "sort", "--scale", "smoke", "--dry-run"),
    "generate": ("generate", "wikitext", "--scale", "smoke", "--prompt", "the city", "--tokens", "3"),
    "data verify": ("data", "verify"),
    "data list": ("data", "list"),
}
ELSEWHERE = {"starting_weights"}  # of a GPT-2's result; what the cell of `train` and the rows of `report` are made of


def documented() -> dict[str, set[str]]:
    """Keys by command, as the page has them; what stands in brackets after a key is of a level below, but for cells."""
    (block,) = re.findall(r"<!-- json -->\n(.*?)<!-- /json -->", PAGE, re.DOTALL)
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", block, re.MULTILINE)
    return {command: set(re.findall(r"`([a-z_]+)`", re.sub(r"\(each .*?\)", "", text))) for command, text in rows}


def test_every_document_has_the_keys_that_the_page_lists(infty: Infty, tmp_path: Path) -> None:
    write_experiment(tmp_path, "mine", {"a": {}})
    (tmp_path / "stream.txt").write_text("0 1 2 3 4 3 3 1 " * 9)
    for more in (("train", *CELL, "--seed", "1"), ("train", "wikitext", "--scale", "smoke")):
        assert infty(*more).returncode == 0
    found = {}
    for command, words in WORDS.items():
        done = infty(*words, "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        found[command] = set(document[0] if isinstance(document, list) else document)
    assert found == {command: keys - ELSEWHERE for command, keys in documented().items()}
