"""Tables beside the report's own, of the committed runs: what the sentences of README and RESULTS.md rest on.

A report's intervals are over the test data. These say what each seed gives, where in a text a difference lies, and what
a row could know at most.
"""

import json
import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from infty.base.table import Table
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import Experiment, resolve
from infty.report.load.results import ResultSet, add_sign, average
from infty.report.paired_bootstrap import Pairs, pair_up
from infty.runs.folder import Run
from infty.runs.parts import Chunks, Sums, TextDetails
from infty.tasks.sort import SortConfig, SortTask, tally

DRAWS = 10_000
BLOCK = 128  # of the small GPT-2; before it is full there is no memory
NEAR, FAR = (1, 128, 512, 1024), "1,024 and more"  # least distances in tokens
Figure = Callable[[Run], float]


def finding_tables(results: ResultSet) -> list[Table]:
    """All of one experiment; none where there is nothing to add."""
    if results.experiment == "sort":
        return [reach_table(results)]
    if not results.is_text or results.experiment.endswith("-ablation"):
        return []
    tables = [seed_table(results), emptied_table(results), ending_table(results)]
    if results.experiment == "gpt2":
        tables += [distance_shares(results), block_table(results), beginning_table(results)]
    return tables


def reach_table(results: ResultSet) -> Table:
    """Sorting: what exact counts would give, of what layers of Transformer-XL reach back to, and of all symbols."""
    cells = [CellKey("sort", "laptop", "transformer-xl", case) for case in results.cases]
    found = [resolve(open_experiment("sort", SHIPPED), cell).experiment for cell in cells]
    rows = [
        ["within reach of one layer of transformer-xl", *(f"{100 * _reach(one, 1):.1f}" for one in found)],
        [
            "within reach of all its layers, one on the other",
            *(f"{100 * _reach(one, one.model.num_layers):.1f}" for one in found),
        ],
        ["all symbols, but ties in any order", *(f"{100 * _counts_alone(one):.1f}" for one in found)],
    ]
    return Table(f"{results.title}: exact counts, % right", ["counted", *results.cases], rows)


def _reach(experiment: Experiment, layers: int) -> float:
    """Accuracy of exact counts of what the caches of so many layers cover, one after the other."""
    model = experiment.model
    assert isinstance(experiment.task, SortConfig)
    task = SortTask(experiment.task)
    return task.calibrate("test", layers * model.memory_slots, model.segment_length)["oracle"]


def _counts_alone(experiment: Experiment) -> float:
    """Accuracy of counts of all symbols, with symbols that came equally often in random order; teacher-forced."""
    assert isinstance(experiment.task, SortConfig)
    task, random, right, scored = SortTask(experiment.task), np.random.RandomState(0), 0, 0
    for batch in task.evaluation_batches("test", 100):
        symbols, answer = (x.numpy() for x in (batch.tokens, batch.targets))
        symbols, answer = symbols[:, : task.config.length], answer[:, task.config.length :]
        counts, _ = tally(symbols, task.config.vocabulary)
        ranks = np.lexsort((random.rand(*counts.shape), -counts)).argsort(-1)
        wanted = np.take_along_axis(ranks, answer, -1)
        best_left = np.minimum.accumulate(wanted[:, ::-1], -1)[:, ::-1]  # of the symbols not yet named
        right, scored = right + int((wanted == best_left).sum()), scored + answer.size
    return right / scored


def seed_table(results: ResultSet) -> Table:
    """Differences between rows, each seed's own, on all tokens, on validation, on far-seen tokens and per word."""
    figures: list[Figure] = [_nats, _validation, lambda run: run.result.metric("test/far_loss")]
    rows = []
    for name, against, pairs in _pairs(results):
        each = [", ".join(add_sign(value, 4) for value in _differences(pairs, figure)) for figure in figures]
        mean, deviation = average(_differences(pairs, _nats_per_word))
        per_word = add_sign(mean, 4) + ("" if deviation is None else f" ± {deviation:.4f}")
        rows.append([name, against, *each, per_word, f"{_documents_to_chunks(pairs):.2f}"])
    headings = [
        "row", "against", "test, nats per token", "validation, nats per token", "test, nats per far-seen token",
        "test, nats per word", "standard error, documents to chunks",
    ]  # fmt: skip
    return Table(f"{results.title}: each seed", headings, rows)


def emptied_table(results: ResultSet) -> Table:
    """What emptying the memory costs each seed."""
    rows = []
    for case in results.cases:
        for model in results.models:
            pairs = [(emptied, run) for run in results.of(model, case) for emptied in run.without("zero")]
            each = _differences(pairs, _nats)
            if each:
                rows.append([results.place(model, case), ", ".join(add_sign(value, 4) for value in each)])
    return Table(f"{results.title}: memory emptied, each seed", ["row", "nats per token"], rows)


def ending_table(results: ResultSet) -> Table:
    """How the validation loss changes between the last two validations of each seed."""
    rows = []
    for case in results.cases:
        for model in results.models:
            curves = [run.curve for run in results.of(model, case) if len(run.curve) > 1]
            each = [add_sign(curve[-1].loss - curve[-2].loss, 4) for curve in curves]
            steps = {curve[-1].step - curve[-2].step for curve in curves}
            if each:
                rows.append([results.place(model, case), ", ".join(map(str, sorted(steps))), ", ".join(each)])
    headings = ["row", "steps between", "change of the validation loss, nats per token"]
    return Table(f"{results.title}: the last two validations, each seed", headings, rows)


def distance_shares(results: ResultSet) -> Table:
    """Of the difference between infty and the first row, the share on words by how long ago they last came, in %."""
    rows = []
    for case in results.cases:
        pairs = pair_up(results.of("infty", case), results.of(results.baseline, case))
        sums = np.mean([np.array(_by_distance(run)) - np.array(_by_distance(other)) for run, other in pairs], axis=0)
        rows.append([case, *(f"{100 * share:.0f}" for share in sums / sums.sum())])
    ranges = [f"{low:,} to {high - 1:,}" for low, high in pairwise(NEAR)]
    headings = ["case", *ranges, FAR, "new words", "no word"]
    return Table(f"{results.title}: where infty is ahead of {results.baseline}, % of the difference", headings, rows)


def _by_distance(run: Run) -> list[float]:
    """Nats on words last seen in each range of distances, on new words, and on what is no word."""
    found = _parts(run).by_distance
    bounds, sums = [*NEAR, math.inf], [0.0] * len(NEAR)
    for low, nats in zip(found.lower, found.nats, strict=True):
        sums[sum(low >= bound for bound in bounds) - 1] += nats
    return [*sums, found.new_word.nats, found.no_word.nats]


def block_table(results: ResultSet) -> Table:
    """The difference between infty and the first row within the first block of a document, and after it."""
    rows = []
    for case in results.cases:
        pairs = pair_up(results.of("infty", case), results.of(results.baseline, case))
        for name, early in ((f"the first {BLOCK - 1} tokens of a document", True), ("all after them", False)):
            each = [_at_places(run, early) - _at_places(other, early) for run, other in pairs]
            rows.append([case, name, ", ".join(add_sign(value, 4) for value in each)])
    return Table(f"{results.title}: infty less {results.baseline}, each seed", ["case", "on", "nats per token"], rows)


def _at_places(run: Run, early: bool) -> float:
    found = _parts(run).by_position
    bins = [
        (nats, tokens)
        for low, nats, tokens in zip(found.lower, found.nats, found.tokens, strict=True)
        if (low < BLOCK) == early
    ]
    return sum(nats for nats, _ in bins) / sum(tokens for _, tokens in bins)


def beginning_table(results: ResultSet) -> Table:
    """Training loss less the first row's on the same blocks: where a graft begins, and where it ends."""
    rows = []
    for case in results.cases:
        for model in ("compressive", "infty"):
            pairs = pair_up(results.of(model, case), results.of(results.baseline, case))
            losses = [(_training_losses(run), _training_losses(other)) for run, other in pairs]
            apart = [np.array(own) - np.array(base) for own, base in losses]
            first = ", ".join(add_sign(one[0], 3) for one in apart)
            last = ", ".join(add_sign(one[-len(one) // 10 :].mean(), 3) for one in apart)
            rows.append([f"{model}, {case}", first, last])
    headings = ["row", "first logged step (10)", "last tenth of the steps"]
    return Table(f"{results.title}: training loss less that of {results.baseline}, each seed", headings, rows)


def _training_losses(run: Run) -> list[float]:
    lines = [json.loads(line) for line in run.folder.metrics.read_text(encoding="utf-8").splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def _pairs(results: ResultSet) -> Iterator[tuple[str, str, Pairs]]:
    """Every two rows that a sentence compares: with the first, with the wide one, and with the one without a memory."""
    for case in results.cases:
        others = (results.baseline, "transformer-xl-wide", "infty-no-memory")
        for i, against in enumerate(others):
            for model in results.models:
                if model.startswith("as-released") or model in others[: i + 1]:
                    continue
                if pairs := pair_up(results.of(model, case), results.of(against, case)):
                    yield results.place(model, case), against, pairs


def _differences(pairs: Pairs, figure: Figure) -> list[float]:
    return [figure(run) - figure(other) for run, other in pairs]


def _nats(run: Run) -> float:
    """Nats per token, over every token."""
    chunks = _parts(run).chunks
    return sum(chunks.nats) / sum(chunks.tokens)


def _validation(run: Run) -> float:
    return min(validation.loss for validation in run.curve)


def _nats_per_word(run: Run) -> float:
    return math.log(run.result.metric("test/word_perplexity"))


def _documents_to_chunks(pairs: Pairs) -> float:
    """How many times the standard error of the difference grows if documents are drawn instead of chunks."""
    documents = _compute_standard_error(pairs, lambda parts: parts.documents)
    return documents / _compute_standard_error(pairs, lambda parts: parts.chunks)


def _compute_standard_error(pairs: Pairs, part: Callable[[TextDetails], Sums | Chunks]) -> float:
    parts = [(part(_parts(run)), part(_parts(other))) for run, other in pairs]
    sums = np.mean([np.array(own.nats) - np.array(base.nats) for own, base in parts], axis=0)
    sizes = np.array(parts[0][0].tokens, dtype=float)
    drawn = np.random.RandomState(0).randint(len(sums), size=(DRAWS, len(sums)))
    return float((sums[drawn].sum(1) / sizes[drawn].sum(1)).std())


def _parts(run: Run) -> TextDetails:
    """Return the parts of the test's mean, which each of these runs has."""
    assert run.parts
    return run.parts
