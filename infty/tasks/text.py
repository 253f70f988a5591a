"""Settings that all tasks on a text share (section 4.2): the corpus, its tokeniser, and which documents are read."""

from abc import ABC
from pathlib import Path
from typing import Any

from pydantic import Field

from infty.corpora.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer
from infty.corpora.tokens import Portion
from infty.tasks.task import TaskConfig

NAMES = "^[a-z0-9][a-z0-9_.-]*$"  # pattern of corpora's names
GPT2 = "gpt2"  # the tokeniser, and the corpus that holds its files


class TextConfig(TaskConfig, ABC):
    """The settings of a tokenised text."""

    kind: Any  # first in files; each task has its own
    corpus: str = Field(pattern=NAMES, description="name of a corpus that `infty data list` shows")
    tokenizer: TokenizerConfig = Field(description="what makes tokens of the text")
    train: Portion = Field(description="documents to train on")
    validation: Portion = Field(description="documents to validate on")
    test: Portion = Field(description="documents to test on")

    @property
    def portions(self) -> dict[str, Portion]:
        """The portions by split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary; an upper bound if the tokeniser is learnt."""
        return self.tokenizer.vocab_size

    @property
    def vocabulary_files(self) -> str | None:
        """The name of the corpus that holds GPT-2's tokeniser; None if another one is used."""
        return GPT2 if self.tokenizer.kind == GPT2 else None

    @property
    def texts(self) -> dict[str, list[Portion]]:
        """The three portions of the corpus that are read, by its name."""
        return {self.corpus: list(self.portions.values())}

    def load_tokenizer(self, folder: Path) -> Tokenizer:
        """Load the tokeniser that a run keeps. MissingError if it is missing or damaged."""
        return load_tokenizer(folder, self.tokenizer, "train again with --fresh")
