"""The corpora that infty knows by name: where they come from, under which licence, and what a whole one counts."""

from dataclasses import dataclass, field
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Layout = Literal["wikitext", "pg19", "text", "tokenizer", "generated"]


@dataclass(frozen=True)
class Hub:
    """A repository of the public hub at one commit. files: patterns of what to fetch for each split."""

    repository: str
    revision: str
    files: dict[str, str]
    kind: Literal["dataset", "model"] = "dataset"
    sums: dict[str, str] = field(default_factory=dict)  # sha256 of files that the hub itself keeps no sha256 of


@dataclass(frozen=True)
class Known:
    """One corpus that infty knows."""

    title: str
    licence: str
    layout: Layout
    hub: Hub | None = None
    documents: dict[str, int] = field(default_factory=dict)  # of each whole split, as published
    words: dict[str, int] = field(default_factory=dict)  # likewise; a perplexity per word divides by them

    def count_words(self, words: int, lines: int) -> int:
        """Count the words that a perplexity per word divides by; in WikiText's layout, line ends count as words."""
        return words + lines if self.layout in ("wikitext", "generated") else words

    def is_whole(self, split: str, documents: int, words: int) -> bool:
        """Tell whether so many documents and words are the whole split."""
        known = self.words.get(split, 0)  # within 1 %: PG-19's published counts are not of white space alone
        return documents == self.documents.get(split, documents) and abs(words - known) <= 0.01 * known

    def is_miscounted(self, split: str, documents: int, words: int) -> bool:
        """Tell whether a text is no part of a split, nor the whole as published, but nearly the whole, or more."""
        most, known = self.documents.get(split), self.words.get(split)
        if not known or self.is_whole(split, documents, words) or (split == "train" and documents == most):
            return False  # nobody has counted the words of PG-19's training books at white space
        return words > 0.95 * known or documents > (most or documents)


def _name_tables(folder: str) -> dict[str, str]:
    return {split: f"{folder}/{split}-*.parquet" for split in SPLITS}


ORIGIN = "a folder of the user's"
KNOWN = {
    "wikitext": Known(
        "WikiText-103 (Merity et al. 2016)",
        "CC BY-SA 3.0 and GFDL, Wikipedia's authors",
        "wikitext",
        Hub("Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3", _name_tables("wikitext-103-v1")),
        {"validation": 60, "test": 60},
        {"train": 103_227_021, "validation": 217_646, "test": 245_569},  # with one <eos> a line
    ),
    "pg19": Known(
        "PG-19 (Rae et al. 2019)",
        "books: public domain in the United States; metadata: Apache-2.0",
        "pg19",
        # The release's texts as parquet; the release itself is a script.
        Hub("emozilla/pg19", "c021754c8e01c5b1cc83a1f549c1f97fbbb756b8", _name_tables("data")),
        {"train": 28_602, "validation": 50, "test": 100},
        {"train": 1_973_136_207, "validation": 3_007_061, "test": 6_966_499},
    ),
    "gpt2": Known(
        "GPT-2's byte-level BPE (Radford et al. 2019)",
        "MIT",
        "tokenizer",
        Hub(
            "openai-community/gpt2",
            "607a30d783dfa663caf39e06633721c8d4cfcd7e",
            {"vocab.json": "vocab.json", "merges.txt": "merges.txt"},
            "model",
            {
                "vocab.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
                "merges.txt": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            },
        ),
    ),
    "generated": Known("generated articles with recurring names", "made by infty: no rights reserved", "generated"),
}


def get_known(name: str) -> Known:
    """Return what is known of a corpus; one of the user's own is taken for text."""
    return KNOWN.get(name) or Known(name, "your own", "text")
