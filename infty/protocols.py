"""What a result means, by name. A change to any of this is a new version of the name."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EvaluationProtocol:
    """unit: what the headline figure is of. memory_reset: where memory is emptied; None: where training emptied it.

    whole: the corpus whose whole split it wants, and whose published words it divides by.
    """

    name: str
    unit: Literal["symbol", "word"]
    memory_reset: Literal["sequence", "document", "never"] | None
    scored: str
    whole: str | None = None
    tokenizer: str | None = None


_EVERY_TOKEN = "every token of the text, a document's first after the separator"
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
    )
}
