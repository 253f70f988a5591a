"""Language modelling through the real command, at smoke scale on made-up articles and on one's own files."""

import csv
import io
import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Infty

CELL = ("wikitext", "--scale", "smoke")


def document(infty: Infty, *words: str, **environment: str) -> dict[str, Any]:
    done = infty(*words, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_result_is_one_total_in_three_views_and_says_what_it_is_of(infty: Infty, tmp_path: Path) -> None:
    result = document(infty, "train", *CELL)
    metrics, totals = result["metrics"], result["totals"]
    assert math.log(metrics["test/word_perplexity"]) * totals["words"] == pytest.approx(totals["nats"], rel=1e-9)
    assert math.log(metrics["test/token_perplexity"]) * totals["scored"] == pytest.approx(totals["nats"], rel=1e-9)
    assert metrics["test/bits_per_byte"] * math.log(2) * totals["bytes"] == pytest.approx(totals["nats"], rel=1e-9)
    assert result["protocol"] == {
        "name": "text-documents-v1",
        "unit": "word",
        "memory_reset": "document",
        "scored": "every token of the text, a document's first after the separator",
        "words": "counted here",
        "segment_length": 16,
        "memory_slots": 32,
    }
    text = (tmp_path / "corpora/generated/test.txt").read_text()
    assert (totals["words"], totals["bytes"]) == (len(text.split()) + text.count("\n"), len(text.encode()))
    assert result["data"]["documents"] == 6
    kept = json.loads((tmp_path / "runs/wikitext/smoke/infty@main/seed-0/eval/text-documents-v1-test.json").read_text())
    for pieces in ("chunks", "documents", "by_position"):
        assert sum(kept["details"][pieces]["nats"]) == pytest.approx(totals["nats"], rel=1e-5)
    far = kept["details"]["far"]
    assert far["nats"] / far["tokens"] == pytest.approx(metrics["test/far_loss"], rel=1e-5)


@pytest.mark.parametrize(
    "model", ["transformer-xl", "compressive", "infty", pytest.param("infty-sticky", marks=pytest.mark.slower)]
)
def test_the_batch_size_changes_nothing_and_a_check_shows_it(infty: Infty, model: str) -> None:
    result = document(infty, "train", *CELL, "--model", model)
    checked = document(infty, "eval", *CELL, "--model", model, "--check-batch")
    assert checked["relative_difference"] <= 1e-6
    assert set(checked["nats"]) == {"1", "2", "7"}
    assert checked["nats"]["2"] == pytest.approx(result["totals"]["nats"], rel=1e-6)


def test_one_stream_is_read_alone(infty: Infty) -> None:
    document(infty, "train", *CELL)
    stream = document(infty, "eval", *CELL, "--protocol", "text-stream-v1")
    documents = document(infty, "eval", *CELL, "--protocol", "text-documents-v1")
    assert stream["totals"]["scored"] == documents["totals"]["scored"]
    assert stream["totals"]["nats"] != documents["totals"]["nats"]
    for words, message in (
        (("--protocol", "text-stream-v1", "--batch", "2"), "one stream whose memory is never reset"),
        (("--protocol", "text-stream-v1", "--knock-out", "other"), "--protocol text-documents-v1"),
        (("--protocol", "wikitext103-word-v1"), "is for the whole test split of WikiText-103"),
        (("--stream", "x", "--knock-out", "zero"), "has no meaning with --stream"),
        (("--check-batch", "--batch", "2"), "leave the others out"),
        (("--protocol", "text-stream-v1", "--check-batch"), "one stream whose memory is never reset"),
        (("--protocol", "nonsense"), "there is wikitext103-word-v1, pg19-word-v1"),
    ):
        done = infty("eval", *CELL, *words)
        assert (done.returncode, message in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


@pytest.mark.slower
@pytest.mark.slow
@pytest.mark.parametrize("model", ["compressive", "infty-sticky"])
def test_knock_outs_change_what_is_read_and_keep_the_result_as_it_was(infty: Infty, tmp_path: Path, model: str) -> None:
    more = ("--set", "training.steps=60", "--set", "training.learning_rate=1e-2", "--name", "more", "--model", model)
    whole = document(infty, "train", *CELL, *more)
    losses = {"": whole["metrics"]["test/loss"]}
    for kind in ("zero", "shuffle", "other"):
        outcome = document(infty, "eval", *CELL, *more, "--knock-out", kind)
        assert outcome["knock_out"] == kind
        assert outcome["totals"]["scored"] == whole["totals"]["scored"]
        losses[kind] = outcome["metrics"]["test/loss"]
    assert len(set(losses.values())) == 4
    assert document(infty, "eval", *CELL, *more)["metrics"]["test/loss"] == losses[""]
    folder = tmp_path / f"runs/wikitext/smoke/{model}@main+more/seed-0/eval"
    more_files = ["-memory"] if model == "infty-sticky" else []
    assert {path.name for path in folder.iterdir()} == {
        f"text-documents-v1-test{without}.json"
        for without in ("", "-without-zero", "-without-shuffle", "-without-other", *more_files)
    }


def test_a_row_without_a_memory_has_nothing_to_knock_out(infty: Infty) -> None:
    document(infty, "train", *CELL, "--model", "transformer-xl")
    done = infty("eval", *CELL, "--model", "transformer-xl", "--knock-out", "zero")
    assert done.returncode == 2
    assert "nothing to knock out" in done.stderr


def test_sorting_has_knock_outs_too(infty: Infty) -> None:
    document(infty, "train", "sort", "--scale", "smoke")
    whole = document(infty, "eval", "sort", "--scale", "smoke")
    for kind in ("zero", "shuffle", "other"):
        outcome = document(infty, "eval", "sort", "--scale", "smoke", "--knock-out", kind)
        assert outcome["totals"]["scored"] == whole["totals"]["scored"]
        assert outcome["metrics"]["test/loss"] != whole["metrics"]["test/loss"]


def test_own_files_are_trained_on_evaluated_and_read_as_a_stream(infty: Infty, tmp_path: Path) -> None:
    folder = tmp_path / "my texts"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.txt").write_text(f"Chapter {i}.\n" + "The cat sat on the mat, and the dog slept. " * (20 + i))
    words = ("text", "--scale", "smoke", "--data", "my texts")
    result = document(infty, "train", *words)
    assert result["data"]["name"].startswith("text-my-texts-")
    assert result["data"]["documents"] == 1
    assert f"--set task.corpus={result['data']['name']}" in result["command"]
    assert document(infty, "eval", *words)["metrics"]["test/loss"] == pytest.approx(
        result["metrics"]["test/loss"], rel=1e-6
    )
    stream = document(infty, "eval", *words, "--stream", "my texts/5.txt")
    size = len((folder / "5.txt").read_bytes())
    assert stream["metrics"]["stream/bits_per_byte"] == pytest.approx(result["metrics"]["test/bits_per_byte"], rel=1e-4)
    assert size == result["totals"]["bytes"]
    report = infty("report")
    assert f"| infty | {result['metrics']['test/word_perplexity']:,.1f} |" in report.stdout, report.stderr
    assert "missing" not in report.stdout
    assert f"text-smoke-{result['data']['name']}.md" in report.stdout
    (folder / "5.txt").write_text("changed")
    for more in (words, words[:3]):
        done = infty("eval", *more)
        assert done.returncode == 3
        assert "nothing trained yet" in done.stderr
        assert re.search(r" \(beside it, with options of their own: infty@main\+\S+\); train it with: ", done.stderr)


def test_a_text_that_changed_is_neither_trained_on_nor_evaluated_as_the_old_one(infty: Infty, tmp_path: Path) -> None:
    source = tmp_path / "wiki"
    source.mkdir()
    article = "".join(f" = Title {i} = \n \n some words of the article {i} \n \n" for i in range(40))
    (source / "wiki.valid.tokens").write_text(article)
    (source / "wiki.test.tokens").write_text(article)
    document(infty, "data", "import", "wikitext", "wiki")
    settings = ("--set", "task.corpus=wikitext", "--set", "task.train.split=validation")
    document(infty, "train", *CELL, *settings)
    (source / "wiki.test.tokens").write_text(article.replace("some", "other"))
    document(infty, "data", "import", "wikitext", "wiki", "--replace")
    (result,) = tmp_path.rglob("result.json")
    result.unlink()  # as if it still had to be tested
    before = {path: path.read_bytes() for path in result.parent.rglob("*") if path.is_file()}
    done = infty("train", *CELL, *settings)
    assert done.returncode == 3
    assert "was trained on another text" in done.stderr
    assert {path: path.read_bytes() for path in result.parent.rglob("*") if path.is_file()} == before
    done = infty("eval", *CELL, *settings)
    assert done.returncode == 3
    assert "was trained on another text" in done.stderr


def test_dry_run_needs_no_text(infty: Infty, tmp_path: Path) -> None:
    words = ("train", "wikitext", "--scale", "smoke", "--dry-run")
    assert "no corpus 'generated'" in document(infty, *words)["text"]
    document(infty, "data", "fetch", "generated")
    assert "not tokenised yet" in document(infty, *words)["text"]
    document(infty, "train", "wikitext", "--scale", "smoke", "--runs", "other")
    sizes = document(infty, *words)
    assert "text" not in sizes
    assert sizes["passes"] > 0
    assert sizes["memory_slots"] == 32
    assert sizes["memory_bytes_a_stream"] >= 2 * (16 + 16) * 16 * 4  # layers, short-term and basis, hidden, bytes
    assert 10 * sizes["parameters"] > sizes["flops_a_token"] > sizes["parameters"]
    assert not (tmp_path / "runs").exists()


def test_faults_of_a_text_s_settings_are_found_before_anything_is_made(infty: Infty, tmp_path: Path) -> None:
    words = ("train", *CELL, "--set", "task.train.last=0", "--set", "model.adaptive.cutoffs=[100,500]")
    done = infty(*words)
    assert done.returncode == 2
    assert "task.train.last" in done.stderr
    done = infty("train", *CELL, "--set", "model.adaptive.cutoffs=[100,500]", "--set", "task.protocol=wiki")
    assert "model.adaptive.cutoffs: the last, 500, is not below the 400" in done.stderr
    assert "task.protocol: no 'wiki'; there is wikitext103-word-v1" in done.stderr
    done = infty("train", *CELL, "--set", "task.memory_reset=sometimes")
    assert (done.returncode, "task.memory_reset" in done.stderr) == (2, True)
    assert not (tmp_path / "runs").exists()
    done = infty("train", *CELL, "--set", "task.protocol=pg19-word-v1")
    assert done.returncode == 2
    assert "is for the whole validation split of PG-19" in done.stderr
    assert not list((tmp_path / "runs").rglob("config.yaml"))


def test_the_tables_of_texts(infty: Infty, tmp_path: Path) -> None:
    results = {model: document(infty, "train", *CELL, "--model", model) for model in ("transformer-xl", "infty")}
    done = infty("report")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "report/wikitext-smoke.md").read_text()
    for model, result in results.items():
        m = result["metrics"]
        row = f"| {model} | {m['test/word_perplexity']:,.1f} | {m['test/token_perplexity']:,.2f} | "
        row += f"{m['test/bits_per_byte']:.4f} | {m['test/loss']:.4f} | {m['test/far_loss']:.4f} | "
        assert row in table
    assert "text-documents-v1" in table
    assert "Far-seen" in table
    assert "| difference to transformer-xl, nats a token ↓ | n |" in table
    assert "3 of 5 runs are missing" in table
    lines = (tmp_path / "report/wikitext-smoke.csv").read_text().splitlines()
    assert len(lines) == 3
    assert str(results["infty"]["totals"]["nats"]) in lines[1] + lines[2]
    assert (tmp_path / "report/wikitext-smoke-distance.svg").read_text().count("transformer-xl") >= 1
    assert "a word" in infty("list", "--scale", "smoke").stdout


def _write_chinese(folder: Path) -> None:
    """Lines of 400 characters without a space between them."""
    draw = random.Random(0)
    for name in "abcd":
        lines = ("".join(chr(0x4E00 + draw.randrange(500)) for _ in range(400)) + "。" for _ in range(10))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_lists(folder: Path) -> None:
    """Lines of long lists, as of sums of files: many bytes between white space, each easy to predict."""
    for name in "abcd":
        (folder / f"{name}.txt").write_text(f"{name},{'0,' * 200}\n" * 10, encoding="utf-8")


@pytest.mark.slower
@pytest.mark.parametrize("write", [_write_chinese, _write_lists])
def test_a_word_perplexity_of_a_text_without_words_is_not_made_up(
    infty: Infty, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """It was cut off at e^700, the same for every row, and `--check` found nothing. Others met the like:
    https://github.com/bigscience-workshop/lm-evaluation-harness/issues/106."""
    own = tmp_path / "own"
    own.mkdir()
    write(own)
    cell = ("text", "--scale", "smoke", "--data", "own")
    done = infty("train", *cell)
    assert "test/word_perplexity: –\n" in done.stdout
    assert "note: –: no measurement" in done.stdout
    (folder,) = tmp_path.glob("runs/text/smoke/*/seed-0")
    result = json.loads((folder / "result.json").read_text())
    metrics, totals = result["metrics"], result["totals"]
    assert metrics["test/word_perplexity"] is None
    assert metrics["test/bits_per_byte"] * math.log(2) * totals["bytes"] == pytest.approx(totals["nats"], rel=1e-9)
    assert all(None not in json.loads(line).values() for line in (folder / "metrics.jsonl").read_text().splitlines())

    report = infty("report")
    assert report.returncode == 0, report.stderr
    (page,) = (tmp_path / "report").glob("text-smoke-*.md")
    row = next(line for line in page.read_text().splitlines() if line.startswith("| infty "))
    assert [cell.strip() for cell in row.split("|")][2] == "–"
    assert "–: no measurement" in page.read_text()
    (table,) = csv.DictReader(io.StringIO(page.with_suffix(".csv").read_text()))
    assert (table["test/word_perplexity"], table["test/bits_per_byte"] != "") == ("", True)
    assert infty("report", "--check").returncode == 0

    # What the version before wrote of it is found, and stands in no table.
    as_it_was = page.read_text()
    metrics["test/word_perplexity"] = math.exp(700)
    (folder / "result.json").write_text(json.dumps(result))
    assert infty("report").returncode == 0
    assert page.read_text() == as_it_was
    checked = infty("report", "--check")
    assert checked.returncode == 4
    assert "test/word_perplexity is 1.0142320547350045e+304, and by its totals no measurement" in checked.stderr
