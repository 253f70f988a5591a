"""Token files: a corpus's splits under one tokeniser, made once and read from disk as they are needed.

<data>/<corpus>/tokens/<kind>-<digest>/
  <split>.bin         tokens, little-endian, two bytes each if they fit, else four
  <split>.starts.npy  where each document begins, and the end
  tokenizer.json or vocabulary.txt
  MANIFEST.json       sizes and sums, written last
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field, model_validator

from infty.base.errors import MissingError, count
from infty.base.files import FileSum, Strict
from infty.base.progress import Advance, show_bar
from infty.corpora.manifest import MANIFEST, TokensManifest, is_whole
from infty.corpora.registry import SPLITS
from infty.corpora.store import Corpus, Document, open_corpus, remedy, replace_data, write_manifest
from infty.corpora.tokenizers import BpeTokenizer, Tokenizer, TokenizerConfig, WordTokenizer, load_tokenizer

logger = logging.getLogger(__name__)


class Portion(Strict):
    """A part of a corpus: the documents [first, last) of one of its splits."""

    split: str = Field(pattern=f"^({'|'.join(SPLITS)})$", description="split of the corpus: train, validation or test")
    first: int = Field(default=0, ge=0, description="first document")
    last: int | None = Field(default=None, gt=0, description="document after the last; null: all that follow")

    @model_validator(mode="after")
    def _some(self) -> "Portion":
        if self.last is not None and self.last <= self.first:
            raise ValueError(f"last {self.last} must be above first {self.first}")
        return self


@dataclass(frozen=True)
class TokenPart:
    """A portion in tokens."""

    tokens: Int64[ndarray, " n"] | Any  # on disk; two or four bytes each
    starts: Int64[ndarray, " edges"]  # where its documents begin, and the end
    documents: list[Document]
    words: int
    bytes: int
    sha256: str  # of all its split's tokens


@dataclass(frozen=True)
class TokenSet:
    """A corpus under one tokeniser. digest: of the tokeniser's and the tokens' own sums together."""

    corpus: Corpus
    tokenizer: Tokenizer
    path: Path
    files: dict[str, FileSum]
    digest: str

    def part(self, portion: Portion) -> TokenPart:
        """Read the tokens of a portion. MissingError if files are damaged or the corpus has too little text for it."""
        split, name, every = portion.split, self.corpus.name, self.corpus.documents(portion.split)
        documents, wanted = every[portion.first : portion.last], portion.last or portion.first + 1
        if wanted - portion.first > len(documents):
            partial = self.corpus.splits[split].get("partial")
            more = f", or fetch all of it: infty data fetch {name} --replace" if partial else ""
            have = f"{name} {split} has {count(len(every), 'document')} here; {wanted} are wanted"
            raise MissingError(f"{have}: ask for fewer (--set task.{split}.last=…, and .first){more}")

        # The files must be undamaged, and their contents must fit together.
        for file in (f"{split}.bin", f"{split}.starts.npy"):
            _check(self.path, file, self.files)
        starts, dtype = _read_starts(self.path / f"{split}.starts.npy", len(every)), _dtype(self.tokenizer.vocab_size)
        whole = self.files[f"{split}.bin"]
        if starts is None or int(starts[-1]) * dtype.itemsize != whole.bytes:
            raise _report_damage(self.path, f"{split}.starts.npy")
        starts, words = starts[portion.first : portion.first + len(documents) + 1], self.corpus.words(documents)
        if not words or starts[0] == starts[-1]:
            raise MissingError(f"{name} {split} holds no word in the part that is wanted: wanted a text")
        tokens = np.memmap(self.path / f"{split}.bin", dtype=dtype, mode="r")[starts[0] : starts[-1]]
        if tokens.max() >= self.tokenizer.vocab_size:
            raise _report_damage(self.path, f"{split}.bin")
        size = sum(document.bytes for document in documents)
        return TokenPart(tokens, starts - starts[0], documents, words, size, whole.sha256)


Teacher = tuple[Corpus, Portion]  # the text that a tokeniser is learnt from


def open_tokens(
    data: Path,
    name: str,
    config: TokenizerConfig,
    portions: dict[str, Portion],
    *,
    learnt_from: tuple[str, Portion] | None = None,
    make: bool = True,
) -> TokenSet:
    """Open the token files of a corpus; if there are none yet they are made, unless `make` is False.

    learnt_from: corpus and portion that a tokeniser is learnt from, if it is learnt; None: `portions["train"]`.

    Raises:
        MissingError: Data are missing or damaged.
    """
    # Their folder is named by a digest of what token files are made of.
    corpus = _open_with_portions(data, name, list(portions.values()))
    splits = sorted({portion.split for portion in portions.values()})
    text, portion = learnt_from or (name, portions["train"])
    teacher = _open_with_portions(data, text, [portion]), portion
    recipe = _digest_recipe(corpus, config, teacher, splits)
    path = corpus.path / "tokens" / f"{config.kind}-{recipe[:12]}"
    if not (path / MANIFEST).is_file():
        if not make:
            raise MissingError(f"{name} is not tokenised yet; training does it")
        _make(corpus, config, teacher, splits, path, recipe)

    # They are trusted if they are of this recipe; `TokenSet.part` checks the sums of the tokens that it reads.
    manifest = TokensManifest.read(path, f"remove {path}, it is made again")
    if manifest.recipe != recipe:
        raise MissingError(f"{path} belongs to other texts; remove it")
    _check(path, "vocabulary.txt" if config.kind == "word" else "tokenizer.json", manifest.files)
    digest = hashlib.sha256(json.dumps(manifest.files, sort_keys=True, default=FileSum.model_dump).encode()).hexdigest()
    return TokenSet(corpus, load_tokenizer(path, config), path, manifest.files, digest)


def _open_with_portions(data: Path, name: str, portions: list[Portion]) -> Corpus:
    """Open the corpus `name`. MissingError if it lacks what is wanted of it."""
    corpus = open_corpus(data, name)
    if absent := sorted({portion.split for portion in portions} - corpus.splits.keys()):
        have = ", ".join(corpus.splits)
        raise MissingError(f"{name} is here without {' and '.join(absent)} (only {have}); {remedy(name)}")
    for portion in portions:
        counts = corpus.splits[portion.split]
        if counts.get("partial") and (portion.last is None or portion.last > counts["documents"]):
            have = f"the first {counts['documents']} documents of {portion.split}"
            raise MissingError(f"only {have} of {name} are here; get the whole with: infty data fetch {name} --replace")
    return corpus


def _digest_recipe(corpus: Corpus, config: TokenizerConfig, teacher: Teacher, splits: list[str]) -> str:
    """Return the digest of what token files are made of: texts, tokeniser, and what it is learnt from."""
    text, portion = teacher
    learnt = [text.splits[portion.split]["sha256"], portion.model_dump()]
    source = open_corpus(corpus.path.parent, "gpt2").files if config.kind == "gpt2" else learnt
    sums = {split: corpus.splits[split]["sha256"] for split in splits}
    made_of = json.dumps([config.model_dump(), source, sums], default=FileSum.model_dump)
    return hashlib.sha256(made_of.encode()).hexdigest()


def _make(
    corpus: Corpus, config: TokenizerConfig, teacher: Teacher, splits: list[str], path: Path, recipe: str
) -> None:
    """Write the token files of a recipe. MissingError if a text is not what was imported."""
    logger.info(f"tokenising {corpus.name} ({', '.join(splits)}) once, {config.kind}")
    text, portion = teacher
    for split in splits:
        corpus.check(f"{split}.txt")
    text.check(f"{portion.split}.txt")
    with replace_data(path) as temporary:
        if (path / MANIFEST).is_file():  # another process made them while this one waited
            temporary.rmdir()
            return
        tokenizer = _make_tokenizer(text, portion, config)
        tokenizer.save(temporary)
        with show_bar(f"tokenising {corpus.name}", sum(corpus.splits[split]["bytes"] for split in splits)) as advance:
            counts = {split: _encode(corpus, split, tokenizer, temporary, advance) for split in splits}
        write_manifest(temporary, {"recipe": recipe, "tokenizer": config.model_dump(), "tokens": counts})


def _make_tokenizer(corpus: Corpus, portion: Portion, config: TokenizerConfig) -> Tokenizer:
    """Learn a tokeniser from a portion of a corpus; or build GPT-2's."""
    if config.kind == "gpt2":
        store = open_corpus(corpus.path.parent, "gpt2")
        for name in ("vocab.json", "merges.txt"):
            store.check(name)
        return BpeTokenizer.gpt2(store.path)
    documents = corpus.documents(portion.split)[portion.first : portion.last]
    with show_bar(f"learning a vocabulary from {corpus.name}", sum(d.bytes for d in documents)) as advance:
        texts = (_count_progress(corpus.text(document, portion.split), advance) for document in documents)
        kind = WordTokenizer if config.kind == "word" else BpeTokenizer
        return kind.learn(texts, config.vocab_size)


def _encode(corpus: Corpus, split: str, tokenizer: Tokenizer, folder: Path, advance: Advance) -> int:
    """Write a split's tokens and where its documents begin; return the number of tokens."""
    starts, dtype = [0], _dtype(tokenizer.vocab_size)
    with (folder / f"{split}.bin").open("wb") as file:
        for document in corpus.documents(split):
            starts.append(starts[-1])
            for tokens in tokenizer.encode(_count_progress(corpus.text(document, split), advance)):
                file.write(tokens.astype(dtype).tobytes())
                starts[-1] += len(tokens)
    np.save(folder / f"{split}.starts.npy", np.array(starts, dtype=np.int64), allow_pickle=False)
    return starts[-1]


def _count_progress(pieces: Iterable[str], advance: Advance) -> Iterator[str]:
    for piece in pieces:
        advance(len(piece.encode()))
        yield piece


def _dtype(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _check(path: Path, name: str, files: dict[str, FileSum]) -> None:
    if not is_whole(path / name, files.get(name)):
        raise _report_damage(path, name)


def _report_damage(path: Path, name: str) -> MissingError:
    return MissingError(f"{path / name} is damaged; remove {path}, it is made again")


def _read_starts(path: Path, documents: int) -> Int64[ndarray, " edges"] | None:
    """Read where documents begin and the last one ends; None if the file holds no such array."""
    # The header is compared with what it must be, not parsed: numpy's reader raises errors of many kinds.
    whole, size = path.read_bytes(), 8 * (documents + 1)
    head = whole[:-size]
    if not (head.startswith(b"\x93NUMPY") and b"'<i8'" in head and f"({documents + 1},)".encode() in head):
        return None
    starts = np.frombuffer(whole, dtype="<i8", offset=len(head)).astype(np.int64)
    return None if starts[0] != 0 or (starts[1:] < starts[:-1]).any() else starts
