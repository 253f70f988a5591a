"""Tokenisers: a corpus's own words, byte-level BPE made from it, and GPT-2's. Text goes in and comes out in pieces.

Each has `vocab_size` tokens; among them is `separator`, which stands before a document's first one, as context only;
`end_of_text`, which ends a text and nothing else (None if there is none); and `no_words`, which stand for no word.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import BaseModel, Field, TypeAdapter
from tokenizers import Tokenizer as Bpe
from tokenizers import decoders, models, pre_tokenizers, trainers

from infty.base.errors import MissingError, describe_fault
from infty.base.files import Strict
from infty.corpora.text_pieces import LONG, cut_at_spaces, lines

UNKNOWN, END_OF_LINE, END_OF_TEXT = "<unk>", "<eos>", "<|endoftext|>"
GPT2_SIZE = 50_257
AT_ONCE = 16  # pieces encoded in parallel


class WordConfig(Strict):
    """Words between white space, and an `<eos>` at each line end; what is not in the vocabulary is `<unk>`."""

    kind: Literal["word"] = Field(default="word", description="a token is a word")
    vocab_size: int = Field(gt=2, description="most frequent types of the training part (WikiText-103: 267,735, all)")


class BpeConfig(Strict):
    """Byte-level BPE learnt from the training part."""

    kind: Literal["bpe"] = Field(default="bpe", description="byte-level BPE learnt from the training part")
    vocab_size: int = Field(ge=257, description="tokens; 256 bytes and the end of text are among them")


class Gpt2Config(Strict):
    """GPT-2's own byte-level BPE."""

    kind: Literal["gpt2"] = Field(default="gpt2", description="GPT-2's own byte-level BPE")

    @property
    def vocab_size(self) -> int:
        """The number of GPT-2's tokens, 50,257."""
        return GPT2_SIZE


TokenizerConfig = Annotated[WordConfig | BpeConfig | Gpt2Config, Field(discriminator="kind")]


class WordTokenizer:
    """A list of types by falling frequency, as an adaptive softmax needs them."""

    def __init__(self, types: list[str]) -> None:
        self.types, self.numbers = types, {word: i for i, word in enumerate(types)}
        self.vocab_size, self.separator = len(types), self.numbers[END_OF_LINE]
        self.unknown = self.numbers[UNKNOWN]
        self.end_of_text = None  # the separator of documents also ends every line
        self.no_words = (self.separator, self.unknown)

    @classmethod
    def learn(cls, texts: Iterable[Iterable[str]], size: int) -> "WordTokenizer":
        """Take the most frequent types of documents; equally frequent ones in alphabetical order."""
        counts: Counter[str] = Counter()
        for text in texts:
            for words in _split_words(text):
                counts.update(words)
        special = {UNKNOWN: counts.pop(UNKNOWN, 0), END_OF_LINE: counts.pop(END_OF_LINE, 0)}
        ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[: size - len(special)]
        return cls([word for word, _ in sorted([*ranked, *special.items()], key=lambda entry: (-entry[1], entry[0]))])

    def encode(self, pieces: Iterable[str]) -> Iterator[Int64[ndarray, " n"]]:
        """Turn each word into a token."""
        find, unknown = self.numbers.get, self.unknown
        for words in _split_words(pieces):
            yield np.fromiter((find(word, unknown) for word in words), dtype=np.int64, count=len(words))

    def decode(self, tokens: Iterable[int]) -> str:
        """Join words by a space, and lines by their ends."""
        return " ".join(self.types[i] for i in tokens).replace(f" {END_OF_LINE}", "\n").replace(END_OF_LINE, "\n")

    def lengths(self) -> None:
        """Return None: tokens are words, not pieces of words."""
        return

    def save(self, folder: Path) -> None:
        """Write vocabulary.txt, a type per line."""
        (folder / "vocabulary.txt").write_text("\n".join([*self.types, ""]), encoding="utf-8", newline="")


class _Merged(Strict, extra="ignore"):
    """Byte-level BPE: the numbers of its tokens, and the pairs that merge, in order."""

    vocab: dict[str, int]
    merges: list[tuple[str, str]]

    def build(self) -> Bpe:
        """Build the tokeniser. ValueError unless its tokens are bytes, what merges make, and the end of text."""
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        parts = {part for pair in self.merges for part in pair}
        tokens = {*alphabet, *(left + right for left, right in self.merges), END_OF_TEXT}
        if self.vocab.keys() != tokens or not parts <= tokens - {END_OF_TEXT} or "" in parts:
            raise ValueError(f"its tokens are not all bytes, what {len(self.merges)} merges make, and {END_OF_TEXT}")
        if sorted(self.vocab.values()) != list(range(len(tokens))):
            raise ValueError("its tokens are not numbered one by one")
        return _make_byte_level(models.BPE(vocab=self.vocab, merges=self.merges))


class _Saved(BaseModel):
    """The part of the tokenizers library's file that is read. The rest is the same in all that infty writes."""

    model: _Merged


class BpeTokenizer:
    """Byte-level BPE: it encodes every text, and decoding gives the same bytes back."""

    def __init__(self, bpe: Bpe) -> None:
        bpe.encode_special_tokens = True  # what looks like a special token in a text is text
        separator = bpe.token_to_id(END_OF_TEXT)
        assert separator is not None
        self.bpe, self.vocab_size, self.separator = bpe, bpe.get_vocab_size(), separator
        self.end_of_text, self.no_words = separator, ()

    @classmethod
    def learn(cls, texts: Iterable[Iterable[str]], size: int) -> "BpeTokenizer":
        """Learn merges from documents."""
        bpe, alphabet = _make_byte_level(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator((piece for text in texts for piece in cut_at_spaces(text)), trainer)
        return cls(bpe)

    @classmethod
    def gpt2(cls, folder: Path) -> "BpeTokenizer":
        """Build GPT-2's tokeniser from `vocab.json` and `merges.txt`. MissingError if they are something else."""
        try:
            vocabulary = TypeAdapter(dict[str, int]).validate_json((folder / "vocab.json").read_bytes(), strict=True)
            merges = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            split = [line.split(" ") for line in merges if line and not line.startswith("#version")]
            if len(vocabulary) != GPT2_SIZE:
                raise ValueError(f"{len(vocabulary)} entries instead of {GPT2_SIZE}")
            return cls(_Merged(vocab=vocabulary, merges=[(left, right) for left, right in split]).build())
        except (OSError, ValueError) as fault:
            why = f"holds no GPT-2 tokeniser (vocab.json, merges.txt): {describe_fault(fault)}"
            raise MissingError(f"{folder} {why}") from None

    def encode(self, pieces: Iterable[str]) -> Iterator[Int64[ndarray, " n"]]:
        """Turn the text into tokens a piece at a time, as if it were encoded whole (see `cut_at_spaces`)."""
        parts = iter(cut_at_spaces(pieces))
        while group := list(islice(parts, AT_ONCE)):
            for encoding in self.bpe.encode_batch_fast(group, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        """Turn tokens into their text; bytes that are no character become U+FFFD."""
        return self.bpe.decode(list(tokens), skip_special_tokens=False)

    def lengths(self) -> Int64[ndarray, " vocab"]:
        """Count the bytes of each token: a character of a byte-level token stands for a byte."""
        return np.array([len(self.bpe.id_to_token(i) or "") for i in range(self.vocab_size)])

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, as the tokenizers library has it."""
        self.bpe.save(str(folder / "tokenizer.json"))


Tokenizer = WordTokenizer | BpeTokenizer


def load_tokenizer(folder: Path, config: TokenizerConfig, mend: str = "remove that folder") -> Tokenizer:
    """Load the tokeniser that `save` wrote. MissingError, with `mend`, if it is missing or damaged."""
    try:
        if isinstance(config, WordConfig):
            return WordTokenizer(_read_types((folder / "vocabulary.txt").read_bytes().decode()))
        return BpeTokenizer(_Saved.model_validate_json((folder / "tokenizer.json").read_bytes()).model.build())
    except (OSError, ValueError) as fault:
        raise MissingError(f"the tokeniser in {folder} can't be read: {describe_fault(fault)}; {mend}") from None


def _read_types(text: str) -> list[str]:
    """Read the lines of a vocabulary. ValueError unless they are words, each once, `<unk>` and `<eos>` among them."""
    types = text.split()
    if "\n".join([*types, ""]) != text or len(set(types)) != len(types):
        raise ValueError("its lines are not words, each once")
    if not {UNKNOWN, END_OF_LINE} <= set(types):
        raise ValueError(f"it lacks {UNKNOWN} or {END_OF_LINE}")
    return types


def _make_byte_level(model: models.Model) -> Bpe:
    bpe = Bpe(model)
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _split_words(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Split a text into words and line ends, some at a time."""
    rest = ""
    for line in lines(pieces):
        ended = line.endswith("\n")
        words = (rest + line).split()
        rest = words.pop() if not ended and words and not line[-1:].isspace() else ""
        if len(rest) > LONG:  # too long for a word
            words, rest = [*words, rest], ""
        yield [*words, END_OF_LINE] if ended else words
    if rest:
        yield [rest]
