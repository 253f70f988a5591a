"""Corpora, token files and weights that went wrong on the way, or were made to do harm.

Whatever comes in, only our own errors come out, each in one line; what was here before stays as it was, and outside
the data folder nothing is touched.
"""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from infty.base.errors import InftyError
from infty.corpora import tokenizers
from infty.corpora.gpt2_weights import find_weights, refuse_other_sizes
from infty.corpora.imports import import_corpus, own_name
from infty.corpora.inventory import inventory, inventory_table, verify
from infty.corpora.registry import KNOWN
from infty.corpora.store import open_corpus
from infty.corpora.tokenizers import BpeConfig, TokenizerConfig, WordConfig
from infty.corpora.tokens import Portion, open_tokens
from tests.conftest import save_gpt2
from tests.corpora.conftest import ARTICLES, pg19_folder, wikitext_folder
from tests.corpora.hostile import ARCHIVES, WITH_SUMS, hostile_tar, hostile_zip, table
from tests.mutations import mutated_bytes, mutated_json

pytestmark = pytest.mark.fuzz
MEMORY = Path("/dev/shm")  # where there is such a place, thousands of small files are written in no time
CONFIGS: dict[str, TokenizerConfig] = {"word": WordConfig(vocab_size=1000), "bpe": BpeConfig(vocab_size=270)}
PORTIONS = {split: Portion(split=split) for split in ("train", "validation", "test")}
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "abc", "<|endoftext|>"]
GPT2 = {token: i for i, token in enumerate(TOKENS)}
MERGES = b"#version: 0.2\na b\nab c\n"


@contextlib.contextmanager
def ours(lines: int = 1) -> Iterator[None]:
    """Nothing but our own errors comes out, each in a line."""
    try:
        yield
    except InftyError as fault:
        said = str(fault).splitlines()
        if not (0 < len(said) <= lines and all(10 < len(line) < 1000 and line.isprintable() for line in said)):
            raise AssertionError(f"not a clear line: {fault!r}") from fault


def tree(folder: Path) -> dict[str, bytes | None]:
    """All files below a folder but locks, and the folders."""
    paths = [path for path in folder.rglob("*") if path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a data folder, in which two corpora are, and a file beside it."""
    root = tmp_path_factory.mktemp("kept")
    (root / "beside.txt").write_text("not ours\n")
    import_corpus(root / "data", "wikitext", wikitext_folder(root / "a"), replace=False)
    import_corpus(root / "data", "mine", own_texts(root / "b"), replace=False)
    shutil.rmtree(root / "a")
    shutil.rmtree(root / "b")
    return root


@pytest.fixture(scope="module")
def tokenised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a data folder, in which books are, in two kinds of tokens."""
    root = tmp_path_factory.mktemp("tokenised")
    import_corpus(root / "data", "pg19", pg19_folder(root / "in"), replace=False)
    for config in CONFIGS.values():
        open_tokens(root / "data", "pg19", config, PORTIONS)
    shutil.rmtree(root / "in")
    return root


def own_texts(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in "abcd":
        (folder / f"{name}.txt").write_text(f"text {name} – naïve\nand more\n", encoding="utf-8")
    return folder


@contextlib.contextmanager
def copied(place: Path) -> Iterator[Path]:
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(shutil.copytree(place, Path(folder) / "place"))


def written(name: str, data: bytes) -> Callable[[Path], Path]:
    """Makes a file in the folder `in` of a place."""

    def make(root: Path) -> Path:
        path = root / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    return make


def import_into(
    place: Path, name: str, replace: bool, make: Callable[[Path], Path], only: tuple[str, ...] | None = None
) -> dict[str, bytes] | None:
    """Import what `make` makes in a copy of a place, and look whether all is well there, or `only` these splits.

    The text of each split; None where the import was refused, and then nothing has changed.
    """
    with copied(place) as root:
        source = make(root)
        before, done = tree(root), False
        with ours():
            import_corpus(root / "data", name, source, replace=replace)
            done = True
        after = tree(root)
        if not done:
            assert after == before
            return None
        elsewhere = [
            {k: v for k, v in found.items() if not f"{k}/".startswith(f"data/{name}/")} for found in (before, after)
        ]
        assert elsewhere[0] == elsewhere[1]
        if only is None:
            verify(root / "data", [name]).refuse_faults()
        corpus = open_corpus(root / "data", name)
        texts = {split: (corpus.path / f"{split}.txt").read_bytes() for split in only or corpus.splits}
        for split, text in texts.items():
            pieces = [piece for document in corpus.documents(split) for piece in corpus.text(document, split)]
            assert "".join(pieces).encode() == text
        return texts


@pytest.mark.parametrize("name", ARCHIVES)
@given(data=st.data())
def test_an_archive(tokenised: Path, name: str, data: st.DataObject) -> None:
    """Whole or not at all; where the archive has sums, to the byte. In pax.tar names too stand where there are none."""
    texts = import_into(tokenised, "wikitext", False, written(name, data.draw(mutated_bytes(ARCHIVES[name]))))
    if texts is not None:
        assert name == "pax.tar" or sorted(texts) == ["test", "validation"]
        if name in WITH_SUMS:
            assert [texts["test"], texts["validation"]] == [ARTICLES[split].encode() for split in ("test", "valid")]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
@given(data=st.data(), replace=st.booleans())
def test_an_archive_that_was_made_to_do_harm(kept: Path, name: str, data: st.DataObject, replace: bool) -> None:
    made = data.draw(hostile_zip() if name == "a.zip" else hostile_tar())
    import_into(kept, "wikitext", replace, written(name, gzip.compress(made) if name == "a.tgz" else made))


@given(mutated_bytes(table()), st.booleans())
def test_a_table(kept: Path, data: bytes, replace: bool) -> None:
    make = written("validation-00000-of-00001.parquet", data)
    import_into(kept, "wikitext", replace, lambda root: make(root).parent)


@given(mutated_bytes(ARTICLES["test"].encode()), st.sampled_from(["tokens", "raw"]), st.booleans())
def test_a_text_of_wikitext(kept: Path, data: bytes, end: str, replace: bool) -> None:
    make = written(f"wiki.test.{end}", data)
    import_into(kept, "wikitext", replace, lambda root: make(root).parent)


@given(st.data(), st.sampled_from(["metadata.csv", "train/9.txt", "test/8.txt"]), st.booleans())
def test_books(tokenised: Path, data: st.DataObject, name: str, replace: bool) -> None:
    def make(root: Path) -> Path:
        path = pg19_folder(root / "in") / name
        path.write_bytes(data.draw(mutated_bytes(path.read_bytes())))
        return root / "in"

    import_into(tokenised, "pg19", replace, make)


@given(st.data(), st.sampled_from(["mine", "other"]), st.booleans(), st.booleans())
def test_texts_of_ones_own(kept: Path, data: st.DataObject, name: str, replace: bool, alone: bool) -> None:
    def make(root: Path) -> Path:
        path = own_texts(root / "in") / "b.txt"
        path.write_bytes(data.draw(mutated_bytes(path.read_bytes() * 30)))
        odd = data.draw(st.sampled_from([b"x.txt", b"\xff.txt", b"a\nb.md", b"\xed\xa0\x80.md"]))
        os.rename(bytes(path), os.path.dirname(bytes(path)) + b"/" + odd)
        source = Path(os.fsdecode(os.path.dirname(bytes(path)) + (b"/" + odd if alone else b"")))
        with ours():
            assert own_name(source).isprintable()
        return source

    import_into(kept, name, replace, make)


@given(st.none() | mutated_json(GPT2), st.none() | mutated_bytes(MERGES), st.booleans())
def test_gpt2s_tokeniser(kept: Path, vocab: bytes | None, merges: bytes | None, replace: bool) -> None:
    def make(root: Path) -> Path:
        written("vocab.json", json.dumps(GPT2).encode() if vocab is None else vocab)(root)
        return written("merges.txt", MERGES if merges is None else merges)(root).parent

    known = KNOWN["gpt2"]
    assert known.hub is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "GPT2_SIZE", len(GPT2))
        patch.setitem(KNOWN, "gpt2", changed(known, hub=changed(known.hub, sums={})))
        import_into(kept, "gpt2", replace, make)


def use(root: Path, kind: str) -> None:
    """All that reads corpora and token files. Everything stays as it was, but that token files may be made."""
    data, before = root / "data", tree(root)
    with ours():
        corpus = open_corpus(data, "pg19")
        for split in PORTIONS:
            with ours():
                documents = corpus.documents(split)
                size = sum(len("".join(corpus.text(document, split)).encode()) for document in documents)
                assert size == corpus.splits[split]["bytes"] == sum(document.bytes for document in documents)
    with ours():
        tokens = open_tokens(data, "pg19", CONFIGS[kind], PORTIONS)
        tokenizer, lengths = tokens.tokenizer, tokens.tokenizer.lengths()
        assert lengths is None or len(lengths) == tokenizer.vocab_size
        assert all(0 <= token < tokenizer.vocab_size for found in tokenizer.encode(["the ënd\n"]) for token in found)
        for portion in (*PORTIONS.values(), Portion(split="train", first=1, last=2)):
            with ours():
                part = tokens.part(portion)
                assert (part.starts[0], part.starts[-1]) == (0, len(part.tokens))
                assert len(part.starts) == len(part.documents) + 1
                assert (np.diff(part.starts) >= 0).all()
                assert 0 <= part.tokens.min() <= part.tokens.max() < tokenizer.vocab_size
                assert min(part.words, part.bytes) > 0
                assert tokenizer.decode(part.tokens.tolist()).encode()
    with ours():
        entries = inventory(data)
        json.dumps([vars(entry) for entry in entries], allow_nan=False)
        assert inventory_table(entries).to_markdown()
    with ours(lines=20):
        verify(data, []).refuse_faults()
    after = tree(root)
    assert {path: after[path] for path in before} == before
    assert all(path.startswith("data/pg19/tokens") for path in after.keys() - before.keys())


@given(st.data(), st.sampled_from([".", "tokens/word-*", "tokens/bpe-*"]), st.sampled_from(["word", "bpe"]))
def test_a_manifest(tokenised: Path, data: st.DataObject, where: str, kind: str) -> None:
    with copied(tokenised) as root:
        [path] = (root / "data" / "pg19").glob(f"{where}/MANIFEST.json")
        path.write_bytes(data.draw(mutated_json(json.loads(path.read_bytes()))))
        use(root, kind)


@given(st.data(), st.booleans(), st.sampled_from([("test",), None]))
def test_importing_over_a_manifest(
    tokenised: Path, data: st.DataObject, replace: bool, only: tuple[str, ...] | None
) -> None:
    """What is imported is whole afterwards, whatever the manifest said before."""
    with copied(tokenised) as root:
        path = root / "data" / "pg19" / "MANIFEST.json"
        path.write_bytes(data.draw(mutated_json(json.loads(path.read_bytes()))))
        import_into(root, "pg19", replace, lambda root: pg19_folder(root / "in", only or tuple(PORTIONS)), only)


NAMES = ("test.documents.json", "train.txt", "test.starts.npy", "train.bin", "vocabulary.txt", "tokenizer.json")


@pytest.mark.parametrize("remade", [True, False], ids=["with its sum", "alone"])
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_file(tokenised: Path, name: str, remade: bool, data: st.DataObject) -> None:
    """Alone, or by someone who wrote its new sum into the manifest as well."""
    kind = "word" if name == "vocabulary.txt" else "bpe"
    with copied(tokenised) as root:
        [path] = [p for p in (root / "data").rglob(name) if p.parent.name.startswith((kind, "pg19"))]
        whole = path.read_bytes()
        path.write_bytes(data.draw(mutated_json(json.loads(whole)) if path.suffix == ".json" else mutated_bytes(whole)))
        if remade:
            sign(path)
        use(root, kind)


def sign(path: Path) -> None:
    """Write a file's sum into the manifest beside it, wherever it stands there."""
    manifest = json.loads((path.parent / "MANIFEST.json").read_bytes())
    new = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    manifest["files"][path.name] = new
    manifest.get("splits", {}).get(path.stem, {}).update(new)
    (path.parent / "MANIFEST.json").write_text(json.dumps(manifest))


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 40), max_size=5), st.sampled_from("<>"))
def test_edges_of_documents(tokenised: Path, starts: list[int], order: str) -> None:
    """An array as numpy writes it, but of other numbers, and with its sum."""
    with copied(tokenised) as root:
        [path] = (root / "data" / "pg19" / "tokens").glob("bpe-*/train.starts.npy")
        np.save(path, np.array(starts, dtype=f"{order}i8"))
        sign(path)
        use(root, "bpe")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"vocab_size": 40, "n_positions": 4, "n_embd": 4, "n_layer": 1, "n_head": 1}
    return save_gpt2(tmp_path_factory.mktemp("weights") / "tiny", **sizes)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@given(data=st.data())
def test_starting_weights(weights: Path, name: str, data: st.DataObject) -> None:
    with copied(weights) as folder:
        path = folder / name
        whole = path.read_bytes()
        made = mutated_json(json.loads(whole)) if path.suffix == ".json" else mutated_bytes(whole)
        path.write_bytes(data.draw(made))
        before = tree(folder)
        with ours():
            found = find_weights(str(folder), folder.parent / "data", may_fetch=False)
            refuse_other_sizes(found.config, {"num_layers": 1, "hidden_size": 4, "vocab_size": 40}, str(folder))
        assert tree(folder) == before
