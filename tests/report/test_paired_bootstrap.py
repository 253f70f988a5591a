"""The paired difference: by hand, against a plain loop and against the textbook's standard error."""

import csv
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from infty.config.definition import SHIPPED
from infty.report import write_report
from infty.report.paired_bootstrap import compare_pair, compare_rows
from infty.runs.folder import Run
from tests.report.handmade import evaluate, make_run, put_text, text_result

pytestmark = pytest.mark.usefixtures("undrawn")

CELL = {"experiment": "wikitext", "scale": "laptop", "model": "infty", "case": "main"}


def run(nats: Sequence[float], tokens: Sequence[int], *, seed: int = 0, weights: str | None = None, **data: str) -> Run:
    start = {"starting_weights": {"origin": "base", "sha256": weights}} if weights else {}
    result = text_result({**CELL, "seed": seed}, data={"name": "w", **data}, **start)
    return make_run(result, {"chunks": {"nats": list(nats), "tokens": list(tokens)}})


def noisy(chunks: int, seed: int) -> tuple[list[float], list[float], list[int]]:
    """Losses of two models whose chunks are hard or easy for both, and sizes."""
    draw = random.Random(seed)
    tokens = [draw.randint(4_000, 6_000) for _ in range(chunks)]
    baseline = [size * draw.uniform(3.0, 7.0) for size in tokens]
    nats = [loss + size * draw.gauss(-0.005, 0.02) for loss, size in zip(baseline, tokens, strict=True)]
    return nats, baseline, tokens


def test_two_chunks_by_hand() -> None:
    """Drawn twice of two: −10/10, 30/30 a quarter each, else 20/40. Neither a mean of chunks' rates nor of sums."""
    found = compare_pair(run([40, 190], [10, 30]), run([50, 160], [10, 30]))
    assert found is not None
    assert (found.difference, found.low, found.high, found.samples) == (0.5, -1.0, 1.0, 2)


def test_the_interval_is_that_of_a_plain_loop() -> None:
    nats, baseline, tokens = noisy(23, seed=1)
    found = compare_pair(run(nats, tokens), run(baseline, tokens))
    draw, values = random.Random(2), []
    for _ in range(10_000):
        picks = [draw.randrange(23) for _ in range(23)]
        values.append(sum(nats[i] - baseline[i] for i in picks) / sum(tokens[i] for i in picks))
    values.sort()
    assert found is not None
    width = values[9_750] - values[250]
    assert found.difference == pytest.approx((sum(nats) - sum(baseline)) / sum(tokens))
    assert found.low == pytest.approx(values[250], abs=0.05 * width)
    assert found.high == pytest.approx(values[9_750], abs=0.05 * width)


def test_many_equal_chunks_give_the_textbook_s_interval() -> None:
    draw, size, count = random.Random(3), 5_000, 400
    rates = [draw.gauss(0.01, 0.03) for _ in range(count)]
    sizes = [size] * count
    found = compare_pair(run([size * (1 + rate) for rate in rates], sizes), run(sizes, sizes))
    mean = sum(rates) / count
    error = math.sqrt(sum((rate - mean) ** 2 for rate in rates)) / count
    assert found is not None
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)


def test_a_hard_text_makes_no_interval_wide_and_the_other_order_turns_the_sign() -> None:
    nats, baseline, tokens = noisy(31, seed=4)
    found = compare_pair(run(nats, tokens), run(baseline, tokens))
    apart = [size + a - b for a, b, size in zip(nats, baseline, tokens, strict=True)]
    alone = compare_pair(run(apart, tokens), run(tokens, tokens))
    turned = compare_pair(run(baseline, tokens), run(nats, tokens))
    assert found is not None
    assert alone is not None
    assert turned is not None
    assert (alone.low, alone.high) == pytest.approx((found.low, found.high))
    assert (-turned.difference, -turned.high, -turned.low) == pytest.approx((found.difference, found.low, found.high))


def test_noise_without_a_difference_holds_zero_and_a_constant_difference_has_no_width() -> None:
    tokens = [5_000, 4_999, 5_001, 5_000, 5_003, 4_998]
    noise = [40.0, -25.0, 10.0, -40.0, 25.0, -10.0]
    same = compare_pair(run([9e4 + value for value in noise], tokens), run([9e4] * 6, tokens))
    shifted = compare_pair(run([5.25 * size for size in tokens], tokens), run([5.0 * size for size in tokens], tokens))
    assert same is not None
    assert shifted is not None
    assert same.difference == pytest.approx(0, abs=1e-12)
    assert same.low < 0 < same.high
    assert (shifted.difference, shifted.low, shifted.high) == pytest.approx((0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    "other",
    [
        run([1, 2], [10, 30], sha256="another text"),
        run([1, 2], [10, 30], tokens_sha256="other tokens"),
        run([1, 2], [11, 29]),
        run([1, 2, 3], [10, 20, 10]),
        make_run(text_result({**CELL, "seed": 0})),
        run([], []),
    ],
    ids=["text", "tokens", "chunks", "number of chunks", "no details", "no chunks"],
)
def test_what_was_not_tested_on_the_same_chunks_is_not_paired(other: Run) -> None:
    one = run([1, 2], [10, 30])
    assert compare_pair(one, other) is None
    assert compare_pair(other, one) is None
    assert compare_rows([one], [other]) is None


def test_one_chunk_has_no_interval() -> None:
    assert compare_pair(run([1], [10]), run([2], [10])) is None
    assert compare_pair(run([], []), run([], [])) is None


def test_seeds_are_paired_with_their_own_and_averaged_before_chunks_are_drawn() -> None:
    """The two seeds that both have differ by (8, −8) and (−4, 12): on average 2 in each chunk of 10 tokens."""
    tokens = [10, 10]
    row = [run([18, 12], tokens), run([36, 52], tokens, seed=1), run([900, 900], tokens, seed=2)]
    baseline = [run([500, 0], tokens, seed=3), run([40, 40], tokens, seed=1), run([10, 20], tokens)]
    found = compare_rows(row, baseline)
    assert found is not None
    assert (found.difference, found.low, found.high, found.samples) == (0.2, 0.2, 0.2, 2)
    assert compare_rows(row[:1], baseline) == compare_pair(row[0], baseline[2])
    assert compare_rows(row[2:], baseline) is None
    again = [run([1, 2], tokens, seed=1, sha256="another text")]
    assert compare_rows([*row[:1], *again], [*baseline[2:], *again]) is None


def put(root: Path, model: str, nats: Sequence[float], *, seed: int = 0, sha256: str = "a", case: str = "main") -> Path:
    """A finished run on a text, written by hand."""
    metrics = {f"test/{name}": sum(nats) for name in ("word_perplexity", "token_perplexity", "bits_per_byte", "loss")}
    values = {"metrics": metrics, "totals": {"nats": sum(nats)}, "data": {"sha256": sha256}}
    return put_text(root, "laptop", model, nats, [10, 30], seed=seed, case=case, **values)


def test_the_table_and_the_list_of_runs_have_the_difference(tmp_path: Path) -> None:
    put(tmp_path / "runs", "transformer-xl", [50, 160])
    put(tmp_path / "runs", "infty", [40, 190])
    put(tmp_path / "runs", "infty", [40, 190], seed=1)
    put(tmp_path / "runs", "infty-sticky", [40, 100], sha256="another text")
    write_report([tmp_path / "runs"], tmp_path / "out", ["md", "csv"], SHIPPED)
    text = (tmp_path / "out/wikitext-laptop.md").read_text()
    ends = {line.split(" | ")[0]: line.split(" | ")[-2:] for line in text.split("## ")[1].splitlines()}
    assert ends["| model"] == ["difference to transformer-xl, nats a token ↓", "n |"]
    assert ends["| transformer-xl"] == ["–", "1 |"]
    assert ends["| compressive"] == ["–", "0 |"]
    assert ends["| infty"] == ["+0.5000 [−1.0000, +1.0000]", "2 |"]
    assert ends["| infty-sticky"] == ["–", "1 |"]
    assert "over 2 chunks of about 5,000 tokens" in text
    assert "nothing of what another seed would give" in text
    with (tmp_path / "out/wikitext-laptop.csv").open(newline="") as file:
        rows = {(row["model"], row["seed"]): row for row in csv.DictReader(file)}
    columns = ("difference", "difference_low", "difference_high", "difference_to")
    assert [rows["infty", "0"][column] for column in columns] == ["0.5", "-1.0", "1.0", "transformer-xl"]
    for other in (("transformer-xl", "0"), ("infty", "1"), ("infty-sticky", "0")):
        assert [rows[other][column] for column in columns] == ["", "", "", ""]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "{"),
        ('"nats": [40.0, 190.0]', '"nats": [40.0]'),
        ('"nats": [40.0, 190.0]', '"nats": [40.0, null]'),
        ('"nats": [40.0, 190.0]', '"nats": [40.0, NaN]'),
        ('"tokens": [10, 30]', '"tokens": [10, 1180591620717411303424]'),
        ('"tokens": [10, 30]', '"tokens": [0, 0]'),
        ('"from": []', '"from": 3'),
        ('"details": {', '"details": [], "x": {'),
    ],
)
def test_where_an_evaluation_is_damaged_its_run_stands_without_a_difference(tmp_path: Path, old: str, new: str) -> None:
    put(tmp_path / "runs", "transformer-xl", [50, 160])
    put(tmp_path / "runs", "infty", [40, 190])
    file = tmp_path / "runs/wikitext/laptop/infty@main/seed-0/eval/p-test.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new) if old else new)
    with pytest.warns(UserWarning, match="no details of this run: evaluate it again with infty eval"):
        write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    text = (tmp_path / "out/wikitext-laptop.md").read_text()
    assert "| infty | 230.0 | 230.00 | 230.0000 | 230.0000 | – | – | 1 |" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"documents": 1', '"documents": "one"'),
        ('"vocab_size": 7', '"vocab_size": null'),
        ('"memory_reset": "document"', '"memory_reset": {"tokens": "many"}'),
        ('"memory_reset": "document"', '"memory_reset": ["document"]'),
        ('"scored": 40', '"scored": [40]'),
        ('"tokens_sha256": "b"', '"tokens_sha256": {}'),
        ('"calibration": {}', '"calibration": {"chance": 0.1}'),
        ('"test/loss": 230.0', '"test/loss": "230"'),
        ('"title": "W"', '"title": "W\\nW"'),
    ],
)
def test_a_damaged_result_of_a_text_is_left_out_with_a_warning(tmp_path: Path, old: str, new: str) -> None:
    put(tmp_path / "runs", "transformer-xl", [50, 160])
    put(tmp_path / "runs", "infty", [40, 190])
    file = tmp_path / "runs/wikitext/laptop/infty@main/seed-0/result.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.warns(UserWarning, match="seed-0 is left out: "):
        write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    text = (tmp_path / "out/wikitext-laptop.md").read_text()
    assert "| infty | – | – | – | – | – | – | 0 |" in text
    assert "| transformer-xl | 210.0 |" in text


def test_without_a_run_of_the_first_row_nothing_is_said_of_differences(tmp_path: Path) -> None:
    put(tmp_path / "runs", "infty", [40, 190])
    write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    text = (tmp_path / "out/wikitext-laptop.md").read_text()
    assert "bootstrap" not in text
    assert " | – | 1 |" in text


def test_rows_that_were_fine_tuned_from_other_weights_are_not_paired() -> None:
    one = run([1, 2], [10, 30], weights="a")
    assert compare_pair(one, run([2, 1], [10, 30], weights="a")) is not None
    for other in ("b", None):
        assert compare_pair(one, run([2, 1], [10, 30], weights=other)) is None


def test_rows_that_were_emptied_or_began_differently_are_named(tmp_path: Path) -> None:
    put(tmp_path / "runs", "transformer-xl", [50, 160])
    put(tmp_path / "runs", "infty", [40, 190])
    file = tmp_path / "runs/wikitext/laptop/infty@main/seed-0/result.json"
    result = json.loads(file.read_text())
    result["protocol"]["memory_reset"] = {"tokens": 2048, "documents": True}
    result["starting_weights"] = {"origin": "base", "sha256": "c"}
    file.write_text(json.dumps(result))
    write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    text = (tmp_path / "out/wikitext-laptop.md").read_text()
    assert "memory reset: every 2,048 tokens and document (infty); document (transformer-xl);" in text
    assert "Rows were fine-tuned from different weights: not comparable." in text
    assert "bootstrap" not in text


def test_what_a_row_loses_without_its_memory(tmp_path: Path) -> None:
    """Over 20 and 40 tokens: 6 and 6 nats more, 0.2 a token; of the other seed nothing is told."""
    for seed in (0, 1):
        put(tmp_path / "runs", "infty", [50, 160], seed=seed)
    put(tmp_path / "runs", "transformer-xl", [50, 160])
    (file,) = (tmp_path / "runs").rglob("infty@main/seed-0/eval/*.json")
    tokens = json.loads(file.read_text())["details"]["chunks"]["tokens"]
    more = [50 + 0.2 * tokens[0], 160 + 0.2 * tokens[1]]
    changes = {"metrics": {"test/loss": 9.0}}
    evaluate(file.parents[1], {"chunks": {"nats": more, "tokens": tokens}}, without="zero", **changes)
    write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    text = (tmp_path / "out/wikitext-laptop.md").read_text()
    table = text.split("memory knocked out\n\n")[1].split("\n\n")[0].splitlines()
    assert table[2:] == ["| infty | +0.2000 [+0.2000, +0.2000] | – | – |"]


def test_a_row_run_on_request_stands_in_its_own_column_and_a_row_of_the_table_in_all(tmp_path: Path) -> None:
    put(tmp_path / "runs", "infty", [40, 190])
    put(tmp_path / "runs", "infty-mine", [40, 190])
    put(tmp_path / "runs", "infty", [40, 190], case="other")
    written = write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    main, other = [
        {row[0] for row in table.rows if isinstance(row[0], str)}
        for table in written.tables
        if "test fig" in table.title
    ]
    assert main - other == {"infty-mine"}
    assert "compressive" in main & other
