"""Our figures beside those in print, from `published.yaml`: the difference, and what may be said of it."""

from functools import cache
from pathlib import Path
from statistics import fmean

from pydantic import Field

from infty.base.files import Strict
from infty.base.table import Table
from infty.config.strict_yaml import parse_yaml
from infty.report.load.results import ResultSet, add_sign, average, format_average, list_metric
from infty.report.paired_bootstrap import Difference, Pairs, compare_rows, match_seeds
from infty.runs.parts import TextData

PUBLISHED = Path(__file__).with_name("published.yaml")
DEVIATIONS, SHARE, MOST, ENOUGH = 2, 0.005, 0.02, 3  # how close to a published value counts as reproduced
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


class Claim(Strict):
    """A claim in print: in a column the row `ahead` does better than the row `of`."""

    case: str
    ahead: str
    of: str
    source: str


class Value(Strict):
    """A figure in print of one row in one column."""

    case: str
    model: str
    value: float
    source: str


class Publication(Strict):
    """What is in print of an experiment. words: of each column's test text; figures over other texts don't compare."""

    protocol: str
    metric: str | None = None
    words: dict[str, int] = Field(default={})
    values: list[Value] = Field(default=[])
    claims: list[Claim] = Field(default=[])


class _Published(Strict):
    sources: dict[str, str]
    experiments: dict[str, Publication]


@cache
def load_published() -> _Published:
    """Load all that is in print. ValueError if the file is not of this form."""
    return _Published.model_validate(parse_yaml(PUBLISHED.read_text(encoding="utf-8")))


def compare_with_print(results: ResultSet) -> list[Table]:
    """Set figures, and the order of rows, beside what is in print of this experiment."""
    found = load_published().experiments.get(results.experiment)
    if found is None:
        return []
    values = [_value_row(results, found, value) for value in found.values if value.case in results.cases]
    claims = [_claim_row(results, claim) for claim in found.claims if claim.case in results.cases]
    metric, scale = (found.metric or "").removeprefix("test/").replace("_", " "), results.scale
    notes = [f"{metric}, {found.protocol}; lower is better.", RULE, *_sources(values)]
    headings = ["row", "published ↓", "source", f"ours, {scale} ↓", "difference", "verdict"]
    better, _ = results.measure.order("above 0", "below 0")
    order = ["column", "in print", "source", f"ours, {scale}: {results.measure.unit} ({better}: so)", "n", "verdict"]
    return [
        results.table("beside the paper", headings, values, notes, figures=False),
        results.table("the order of rows", order, claims, [ORDER, *_sources(claims)], figures=False),
    ]


def _value_row(results: ResultSet, found: Publication, value: Value) -> list[str]:
    runs = results.of(value.model, value.case)
    row = [results.place(value.model, value.case), f"{value.value:.2f}", value.source]
    if not runs:
        return [*row, "–", "–", "missing"]
    if not (figures := list_metric(runs, found.metric or "")):
        return [*row, "–", "–", "not comparable: another figure"]
    ours = f"{format_average(figures, 2)} (n = {len(runs)})"
    if why := _find_differences(results, found, value.case):
        return [*row, ours, "–", f"not comparable: {', '.join(why)}"]
    mean, deviation = average(figures)
    difference = mean - value.value
    verdict = _judge_value(difference / value.value, (deviation or 0) / value.value, len(runs))
    return [*row, ours, add_sign(difference, 2), verdict]


def _judge_value(difference: float, deviation: float, seeds: int) -> str:
    """Judge a difference. difference, deviation: as shares of the published value."""
    if abs(difference) <= SHARE:
        return "reproduced"
    if seeds >= ENOUGH and abs(difference) <= DEVIATIONS * deviation:
        return "reproduced" if DEVIATIONS * deviation <= MOST else "too noisy"
    return "outside"


def _find_differences(results: ResultSet, found: Publication, case: str) -> list[str]:
    """List why figures of a column are not comparable with the published ones."""
    runs, words = results.of(None, case), found.words.get(case)
    texts = [data for run in runs for data in (run.result.data, run.result.training_data) if isinstance(data, TextData)]
    reasons = {
        f"{results.scale} scale": results.scale != "paper",
        f"protocol {results.protocol}": results.protocol != found.protocol,
        "a subset of the corpus": any("subset" in text.title for text in texts),
        "another test text": words and {run.result.totals.words for run in runs} != {words},
        "rows tested on different data": len({run.result.data.sha256 for run in runs}) > 1,
    }
    return [reason for reason, holds in reasons.items() if holds]


def _claim_row(results: ResultSet, claim: Claim) -> list[str]:
    runs, others, measure = results.of(claim.ahead, claim.case), results.of(claim.of, claim.case), results.measure
    pairs, whole = match_seeds(runs, others), compare_rows(runs, others)
    if why := _find_fault(pairs):
        difference = "–"
    else:  # of means, if nothing pairs
        ahead, of = ([measure.of(run) for run in row] for row in zip(*pairs, strict=True))
        difference = add_sign(fmean(ahead) - fmean(of), measure.digits)
    figures = [whole.format(measure.digits) if whole else difference, str(len(whole.each if whole else pairs))]
    verdict = why or _judge_order(results, whole)
    return [claim.case, f"{claim.ahead} ahead of {claim.of}", claim.source, *figures, verdict]


def _find_fault(pairs: Pairs) -> str:
    """Say why runs can't be compared; nothing if they can."""
    runs = [run for pair in pairs for run in pair]
    if len({run.result.data.digests for run in runs}) > 1:
        return "not comparable: other test data"
    if len({run.start for run in runs}) > 1:
        return "not comparable: other starting weights"
    return "" if pairs else "missing"


def _judge_order(results: ResultSet, whole: Difference | None) -> str:
    """Judge an order of rows. whole: their difference, if it has an interval."""
    if results.scale == "smoke":  # a few steps, to see that everything runs
        return "none: nothing was learnt"
    if whole is None:
        return "no interval"
    if whole.seen and len(whole.each) < ENOUGH:
        return "too few seeds"
    return whole.judge(*results.measure.order("agrees", "contradicts"))


def _sources(rows: list[list[str]]) -> list[str]:
    """Explain the sources that a table's third column names."""
    return [f"{name}: {load_published().sources[name]}." for name in dict.fromkeys(row[2] for row in rows)]
