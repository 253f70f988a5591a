"""A made-up corpus, the same on every machine: articles in which names recur long after they were introduced."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from infty.corpora.layouts import Source
from infty.corpora.text_pieces import Marked

Item = TypeVar("Item")
ARTICLES = {"train": 60, "validation": 6, "test": 6}
_SYLLABLES = [consonant + vowel for consonant in "bdklmnrst" for vowel in "aeio"]
_TRADES = ["baker", "smith", "farmer", "sailor", "weaver", "doctor", "teacher", "miller", "painter", "hunter"]
_TOWNS = ["Arden", "Bexley", "Corfe", "Dunster", "Elm", "Farnham", "Goring", "Hythe", "Iffley", "Jarrow"]
_FILLERS = [
    "the river was wide and the road was long .",
    "it rained for most of the week .",
    "there was a market on the square in spring .",
    "people talked about the harvest and the price of bread .",
    "the old bridge had been repaired the year before .",
]


def make_sources() -> dict[str, Source]:
    """Make the sources of the made-up corpus, by split."""
    return {split: Source(_write_articles(count, i), 3000 * count) for i, (split, count) in enumerate(ARTICLES.items())}


def _write_articles(count: int, split: int) -> Marked:
    for number in range(count):
        random = np.random.Philox(key=1000 * split + number)
        names = ["".join(_pick(random, _SYLLABLES) for _ in range(3)).capitalize() for _ in range(4)]
        people = [(name, _pick(random, _TRADES), _pick(random, _TOWNS)) for name in names]
        yield True, f" = The people of {people[0][2]} = \n"
        yield False, " \n"
        for name, trade, town in people:
            yield False, f" {name} was a {trade} from {town} . \n"
        for _ in range(6):
            fillers = " ".join(_pick(random, _FILLERS) for _ in range(4))
            name, trade, town = _pick(random, people)
            yield False, f" {fillers} then {name} , the {trade} from {town} , came home . \n"
        yield False, " \n"


def _pick(random: np.random.Philox, items: Sequence[Item]) -> Item:
    """Pick one of them, by the generator's raw numbers: they are the same on every machine."""
    return items[int(random.random_raw()) % len(items)]
