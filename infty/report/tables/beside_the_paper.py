"""Our figures beside those in print: the difference, and what may be said of it."""

from infty.base.table import Table
from infty.report.load.published import Publication, Value, published
from infty.report.load.results import ResultSet, Run, mean_and_deviation, signed
from infty.report.paired_bootstrap import Paired, interval, paired_over_seeds

DEVIATIONS, SHARE, MOST, ENOUGH = 2, 0.005, 0.02, 3  # how far from a published value is still that value
RULE = (
    f"Reproduced: ours is within {100 * SHARE:g} % of the published value; or within {DEVIATIONS} standard deviations "
    f"over {ENOUGH} seeds or more, if these are {100 * MOST:g} % of it at most (else: too noisy). Otherwise outside."
)
ORDER = (
    "Agrees, contradicts: the 95 % interval of the difference between our rows lies on that side of 0; "
    "no difference seen: it holds 0. It is over the test data (seeds averaged) and says nothing of other seeds; "
    "'with k of n seeds': k of our n seeds, each alone, show a difference of the same sign. "
    f"Too few seeds: fewer than {ENOUGH}; without a true difference two agree half of the time. "
    "No interval: the runs' figures by sequence or chunk are not there."
)


def published_tables(results: ResultSet) -> list[Table]:
    """Figures, and the order of rows, beside what is in print of this experiment; none where nothing is."""
    found = published().experiments.get(results.experiment)
    if found is None:
        return []
    return [table for table in (_values_table(results, found), _claims_table(results, found)) if table.rows]


def _values_table(results: ResultSet, found: Publication) -> Table:
    rows = [_value_row(results, found, value) for value in found.values if value.case in results.cases]
    headings = ["row", "published ↓", "source", f"ours, {results.scale} ↓", "difference", "verdict"]
    metric = (found.metric or "").removeprefix("test/").replace("_", " ")
    notes = [f"{metric}, {found.protocol}; lower is better.", RULE, *_sources([row[2] for row in rows])]
    return Table(f"{results.title}: beside the paper", headings, rows, notes, figures=False)


def _value_row(results: ResultSet, found: Publication, value: Value) -> list[str]:
    runs = results.of(value.model, value.case)
    row = [results.place(value.model, value.case), f"{value.value:.2f}", value.source]
    if not runs:
        return [*row, "–", "–", "missing"]
    if found.metric not in runs[0].result["metrics"]:
        return [*row, "–", "–", "not comparable: another figure"]
    mean, deviation = mean_and_deviation([run.result["metrics"][found.metric] for run in runs])
    ours = f"{mean:,.2f}" + ("" if deviation is None else f" ± {deviation:,.2f}") + f" (n = {len(runs)})"
    if why := _not_comparable(results, found, value.case):
        return [*row, ours, "–", f"not comparable: {', '.join(why)}"]
    difference = mean - value.value
    verdict = _verdict(difference / value.value, (deviation or 0) / value.value, len(runs))
    return [*row, ours, signed(difference, 2), verdict]


def _verdict(difference: float, deviation: float, seeds: int) -> str:
    """What may be said of a difference. difference, deviation: as shares of the published value."""
    if abs(difference) <= SHARE:
        return "reproduced"
    if seeds >= ENOUGH and abs(difference) <= DEVIATIONS * deviation:
        return "reproduced" if DEVIATIONS * deviation <= MOST else "too noisy"
    return "outside"


def _not_comparable(results: ResultSet, found: Publication, case: str) -> list[str]:
    """Why figures of a column are not what was published; empty where they are."""
    runs, words = results.of(None, case), found.words.get(case)
    partial = any("subset" in run.result[key].get("title", "") for run in runs for key in ("data", "training_data"))
    return [
        *([f"{results.scale} scale"] if results.scale != "paper" else []),
        *([f"protocol {results.protocol}"] if results.protocol != found.protocol else []),
        *(["a subset of the corpus"] if partial else []),
        *(["another test text"] if words and {run.result["totals"]["words"] for run in runs} != {words} else []),
        *(["rows tested on different data"] if case in results.mixed_data() else []),
    ]


def _claims_table(results: ResultSet, found: Publication) -> Table:
    rows = []
    for claim in found.claims:
        if claim.case not in results.cases:
            continue
        ahead, of = _with_shared_seeds(results.of(claim.ahead, claim.case), results.of(claim.of, claim.case))
        pair = paired_over_seeds(ahead, of)
        difference = interval(pair, results.digits) if pair else _of_means(results, ahead, of)
        seeds = len(pair.each) if pair else len(ahead)
        verdict = _order_verdict(results, [*ahead, *of], pair)
        rows.append([claim.case, f"{claim.ahead} ahead of {claim.of}", claim.source, difference, str(seeds), verdict])
    better = "above 0" if results.higher_is_better else "below 0"
    headings = ["column", "in print", "source", f"ours, {results.scale}: {results.unit} ({better}: so)", "n", "verdict"]
    return Table(f"{results.title}: the order of rows", headings, rows, [ORDER, *_sources([row[2] for row in rows])],
                 figures=False)  # fmt: skip


def _order_verdict(results: ResultSet, both: list[Run], pair: Paired | None) -> str:
    """What may be said of an order of rows. both: runs of both with the same seeds; empty where there are none."""
    if not both:
        return "missing"
    if why := _apart(both):
        return f"not comparable: {why}"
    if results.scale == "smoke":  # a few steps, to see that everything runs
        return "none: nothing was learnt"
    if pair is None:
        return "no interval"
    if not pair.seen:
        return "no difference seen"
    if len(pair.each) < ENOUGH:
        return "too few seeds"
    said = "agrees" if (pair.low > 0) == results.higher_is_better else "contradicts"
    return f"{said}{pair.agreement}"


def _of_means(results: ResultSet, ahead: list[Run], of: list[Run]) -> str:
    """Difference of the means of runs that can't be paired; a dash where they can't be compared at all."""
    if not ahead or _apart([*ahead, *of]):
        return "–"
    scale = 1 if results.is_text else 100
    means = [
        mean_and_deviation([scale * run.result["metrics"][results.metric] for run in runs])[0] for runs in (ahead, of)
    ]
    return signed(means[0] - means[1], results.digits)


def _with_shared_seeds(runs: list[Run], others: list[Run]) -> tuple[list[Run], list[Run]]:
    """The runs of both rows whose seed the other has too."""
    shared = {run.cell.seed for run in runs} & {run.cell.seed for run in others}
    mine, theirs = ([run for run in found if run.cell.seed in shared] for found in (runs, others))
    return mine, theirs


def _apart(runs: list[Run]) -> str:
    """Why runs can't be compared; empty where they can."""
    if len({(run.result["data"]["sha256"], run.result["data"].get("tokens_sha256")) for run in runs}) > 1:
        return "other test data"
    return "other starting weights" if len({run.start for run in runs}) > 1 else ""


def _sources(names: list[str]) -> list[str]:
    return [f"{name}: {published().sources[name]}." for name in dict.fromkeys(names)]
