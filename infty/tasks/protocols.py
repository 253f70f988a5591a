"""What a result means, by name. A change to any of this is a new version of the name."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

KnockOut = Literal["zero", "shuffle", "other"]  # what is read in the memory's place (see knockout.py)
KNOCK_OUTS: tuple[KnockOut, ...] = get_args(KnockOut)


@dataclass(frozen=True)
class EvaluationProtocol:
    """What an evaluation scores and where it forgets.

    unit: what the headline figure is of. memory_reset: where memory is emptied; None: where training emptied it.
    whole: the corpus whose whole split it wants, and whose published words it divides by. block: the segment length it
    is for. by_blocks: a block's first token is told, but not scored; words and bytes count every token all the same.
    """

    name: str
    unit: Literal["symbol", "word", "token"]
    memory_reset: Literal["sequence", "document", "never"] | None
    scored: str
    whole: str | None = None
    tokenizer: str | None = None
    block: int | None = None
    by_blocks: bool = False

    def has_blocks_of(self, segment_length: int, tokenizer: str) -> bool:
        """Whether segments of this length in these tokens are the blocks that it is for, if it is for any."""
        return self.block is None or (self.block, self.tokenizer) == (segment_length, tokenizer)

    def describe(self) -> dict[str, Any]:
        """Describe what figures mean, as results hold it."""
        inner = ("whole", "tokenizer", "block", "by_blocks")  # what it is for, which its name says
        return {key: value for key, value in asdict(self).items() if key not in inner}


_EVERY_TOKEN = "every token of the text, a document's first after the separator"
_BUT_THE_FIRST = "every token but the first of each block; words and bytes: every token of the text"
SORT = EvaluationProtocol("sort-accuracy-v1", "symbol", "sequence", "all symbols of the answer, teacher-forced")
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
