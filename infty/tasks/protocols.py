"""Evaluation protocols (section 4): a name fixes what a result means, so any change needs a new version of the name."""

from dataclasses import dataclass
from typing import Literal, get_args

KnockOut = Literal["zero", "shuffle", "other"]  # what is read instead of the memory (see memory/contract.py)
Metrics = dict[str, float | None]  # named `<split>/<name>`; None: a figure that can't be made
MOST_NATS = 20.0  # nats a unit: a perplexity above e^20 is no measurement
MOST_BYTES = 100  # bytes a word: longer ones are of a script that does not put white space between words
NO_FIGURE = (
    f"–: no measurement. A perplexity is given up to e^{MOST_NATS:g}, and one per word if what white space separates "
    f"has at most {MOST_BYTES} bytes on average; bits per byte say the same of any text."
)
KNOCK_OUTS: tuple[KnockOut, ...] = get_args(KnockOut)


def has_words(size: int, words: int) -> bool:
    """Tell whether what white space separates in a text of so many bytes are words; else they are no unit."""
    return size <= MOST_BYTES * words


@dataclass(frozen=True)
class EvaluationProtocol:
    """The targets that an evaluation scores, and when it empties memories."""

    name: str
    unit: Literal["symbol", "word", "token"]  # of the main metric
    memory_reset: Literal["sequence", "document", "never"] | None  # after which memories are emptied; None: as trained
    scored: str
    whole: str | None = None  # corpus whose whole split is required; perplexity divides by its published words
    tokenizer: str | None = None  # that is required; None: any
    block: int | None = None  # segment length that is required; None: any
    by_blocks: bool = False  # a block's first token is not scored; words and bytes still count every token

    def has_blocks_of(self, segment_length: int, tokenizer: str) -> bool:
        """Tell if segments of this length in these tokens are the blocks that the protocol requires, if any."""
        return self.block is None or (self.block, self.tokenizer) == (segment_length, tokenizer)


_EVERY_TOKEN = "every token of the text, a document's first after the separator"
_BUT_THE_FIRST = "every token but the first of each block; words and bytes: every token of the text"
SORT = EvaluationProtocol("sort-accuracy-v1", "symbol", "sequence", "all symbols of the answer, teacher-forced")
RECALL = EvaluationProtocol(
    "recall-accuracy-v1", "symbol", "sequence", "the value of each key asked for, teacher-forced"
)
TEXT_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol(
            "wikitext103-word-v1", "word", "never", "every word and every line end (<eos>)", "wikitext", "word"
        ),
        EvaluationProtocol("pg19-word-v1", "word", "document", f"{_EVERY_TOKEN}; over the published words", "pg19"),
        EvaluationProtocol("text-documents-v1", "word", "document", _EVERY_TOKEN),
        EvaluationProtocol("text-stream-v1", "word", "never", _EVERY_TOKEN),
        EvaluationProtocol("text-as-trained-v1", "word", None, _EVERY_TOKEN),
        EvaluationProtocol(
            "gpt2-block512-v1", "token", None, _BUT_THE_FIRST, tokenizer="gpt2", block=512, by_blocks=True
        ),
        EvaluationProtocol("gpt2-blocks-v1", "token", None, _BUT_THE_FIRST, by_blocks=True),
    )
}
