"""Tokenisers: text comes back, pieces change nothing, vocabularies are those counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Bpe

from infty.base.errors import MissingError
from infty.corpora import text_pieces as pieces
from infty.corpora.tokenizers import BpeConfig, BpeTokenizer, WordConfig, WordTokenizer, load_tokenizer

TEXT = "the cat sat on the mat .\nthe dog sat too .\n" * 3 + "naïve 漢字 😀  two  spaces\n\n\tand a tab"
BPE = BpeTokenizer.learn([[TEXT]], 300)


def encode(tokenizer: BpeTokenizer | WordTokenizer, text: str, size: int = 10**6) -> list[int]:
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    return np.concatenate([np.empty(0, dtype=np.int64), *tokenizer.encode(parts)]).tolist()


def test_words_and_line_ends_by_falling_frequency() -> None:
    tokenizer = WordTokenizer.learn([["b a\n", "b"], [" b c\n"]], 100)
    # b stands three times, <eos> twice, a and c once, <unk> never
    assert tokenizer.types == ["b", "<eos>", "a", "c", "<unk>"]
    assert encode(tokenizer, "a b\nz") == [2, 0, 1, 4]
    assert tokenizer.decode([2, 0, 1, 4]) == "a b\n <unk>"
    assert WordTokenizer.learn([["b a b\n c b \n"]], 4).types == ["b", "<eos>", "a", "<unk>"]  # a before c


def test_only_subwords_have_a_token_that_ends_a_text() -> None:
    words = WordTokenizer(["a", "<eos>", "<unk>"])
    assert (words.separator, words.end_of_text, words.no_words) == (1, None, (1, 2))
    assert (BPE.end_of_text, BPE.no_words) == (BPE.separator, ())


def test_a_vocabulary_of_the_whole_text_has_as_many_types_as_the_text() -> None:
    words = set(TEXT.split())
    assert WordTokenizer.learn([[TEXT]], 10**6).vocab_size == len(words) + 2


@given(st.text(st.sampled_from("ab \n<unk>"), max_size=50), st.integers(1, 9))
def test_words_do_not_depend_on_the_pieces(text: str, size: int) -> None:
    tokenizer = WordTokenizer(["a", "ab", "b", "<unk>", "<eos>"])
    wanted = [tokenizer.numbers.get(w, 3) for w in " \n ".join(text.split("\n")).replace("\n", "<eos>").split()]
    assert encode(tokenizer, text, size) == wanted


@given(st.text(max_size=80))
def test_byte_level_tokens_give_any_text_back(text: str) -> None:
    tokens = encode(BPE, text)
    assert BPE.decode(tokens) == text
    assert BPE.lengths()[tokens].sum() == len(text.encode())


@given(st.text(st.sampled_from("the catsod. \n\t"), max_size=300), st.integers(1, 40), st.integers(8, 40))
def test_byte_level_tokens_do_not_depend_on_the_pieces(text: str, size: int, long: int) -> None:
    """Cuts fall before the one space before a word, where the tokeniser cuts anyway."""
    whole = BPE.bpe.encode(text, add_special_tokens=False).ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LONG", long)
        parts = list(pieces.cut_at_spaces(text[i : i + size] for i in range(0, len(text), size)))
        found = encode(BPE, text, size)
    unforced = all(part.startswith(" ") and not part[1:2].isspace() for part in parts[1:])
    if unforced:
        assert found == whole
    assert BPE.decode(found) == text


def test_what_looks_like_a_mark_is_text() -> None:
    tokens = encode(BPE, "a <|endoftext|> b")
    assert BPE.separator not in tokens
    assert BPE.decode(tokens) == "a <|endoftext|> b"


def test_learning_twice_gives_the_same_tokeniser() -> None:
    again = BpeTokenizer.learn([[TEXT]], 300)
    assert again.bpe.to_str() == BPE.bpe.to_str()
    assert BPE.vocab_size == 300


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_saved_tokeniser_is_the_same(tmp_path: Path, kind: str) -> None:
    tokenizer = BPE if kind == "bpe" else WordTokenizer.learn([[TEXT]], 1000)
    config = BpeConfig(vocab_size=300) if kind == "bpe" else WordConfig(vocab_size=1000)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path, config)
    assert isinstance(again, BpeTokenizer | WordTokenizer)
    assert encode(again, TEXT) == encode(tokenizer, TEXT)
    assert (again.vocab_size, again.separator) == (tokenizer.vocab_size, tokenizer.separator)


@pytest.mark.parametrize("damage", ["missing", "garbage", "other"])
def test_a_damaged_tokeniser_is_refused(tmp_path: Path, damage: str) -> None:
    if damage != "missing":
        (tmp_path / "tokenizer.json").write_text("{" if damage == "garbage" else '{"version": "1.0"}')
        (tmp_path / "vocabulary.txt").write_text("a\nb\n")
    for config in (BpeConfig(vocab_size=300), WordConfig(vocab_size=1000)):
        with pytest.raises(MissingError, match="can't be read"):
            load_tokenizer(tmp_path, config)


def gpt2_files(folder: Path) -> Path:
    """As many entries as GPT-2's, in its two files: bytes, 50,000 merges of two of them, and the end of text."""
    alphabet = sorted(json.loads(BPE.bpe.to_str())["model"]["vocab"], key=lambda token: (len(token), token))[:256]
    pairs = [(a, b) for a in alphabet for b in alphabet][:50_000]
    tokens = [*alphabet, *(a + b for a, b in pairs), "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
    return folder


def test_gpt2s_two_files_make_a_tokeniser(tmp_path: Path) -> None:
    tokenizer = BpeTokenizer.gpt2(gpt2_files(tmp_path))
    assert (tokenizer.vocab_size, tokenizer.separator) == (50_257, 50_256)
    assert tokenizer.decode(encode(tokenizer, TEXT)) == TEXT
    tokenizer.save(tmp_path)
    assert Bpe.from_file(str(tmp_path / "tokenizer.json")).encode(TEXT).ids == encode(tokenizer, TEXT)


@pytest.mark.parametrize("damage", ["missing", "short", "garbage", "merge"])
def test_files_that_are_not_gpt2s_are_refused(tmp_path: Path, damage: str) -> None:
    if damage != "missing":
        gpt2_files(tmp_path)
    if damage == "short":
        (tmp_path / "vocab.json").write_text('{"a": 0, "<|endoftext|>": 1}')
        (tmp_path / "merges.txt").write_text("")
    if damage == "garbage":
        (tmp_path / "vocab.json").write_text("<html>")
    if damage == "merge":
        (tmp_path / "merges.txt").write_text("a b c\n")
    with pytest.raises(MissingError, match="holds no GPT-2 tokeniser"):
        BpeTokenizer.gpt2(tmp_path)
