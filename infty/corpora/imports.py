"""Import a corpus from a folder, or from an archive of the user's own."""

import hashlib
import logging
import re
import warnings
from dataclasses import replace as changed
from pathlib import Path

from infty.base.errors import MissingError, UsageError, count, one_line
from infty.base.files import blame_file, sha256
from infty.corpora.archives import open_folder
from infty.corpora.contents import Contents
from infty.corpora.layouts import find_pg19, find_text, find_texts, find_wikitext, refuse_missing_shards
from infty.corpora.overlap import find_trained_on
from infty.corpora.registry import ORIGIN, get_known
from infty.corpora.store import NAME, Corpus, copy_corpus, refuse_no_corpus, remedy, write_corpus
from infty.corpora.tokenizers import BpeTokenizer

logger = logging.getLogger(__name__)

FINDERS = {"wikitext": find_wikitext, "pg19": find_pg19, "text": find_text}


def import_corpus(data: Path, name: str, source: Path, *, replace: bool) -> Corpus:
    """Copy, count and check what is in `source`; any name that is not a known corpus's is plain text.

    Raises:
        MissingError: It is something else or damaged. No error leaves anything half-made.
        UsageError: The name is invalid, or another corpus has it (unless `replace`).
        InftyError: The disk is full.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} can't be a corpus's name: wanted lower-case letters, digits, '-', '_' and '.'")
    layout = get_known(name).layout
    if layout == "generated":
        raise UsageError(f"{name} is made by infty and not imported")
    with open_folder(source, data) as folder:
        return import_folder(data, name, folder, ORIGIN, None, replace=replace)


def import_folder(
    data: Path, name: str, folder: Path, origin: str, parts: dict[str, int | None] | None, *, replace: bool
) -> Corpus:
    """Import a folder. parts: documents of each split; None: all. MissingError, UsageError as in `import_corpus`."""
    layout = get_known(name).layout
    if layout == "tokenizer":
        return _import_tokenizer(data, name, folder, origin, replace=replace)
    contents = Contents(folder)
    found = FINDERS[layout](contents)
    if parts is None:
        refuse_missing_shards(contents.taken)
    sources = {split: changed(found[split], limit=limit) for split, limit in (parts or dict.fromkeys(found)).items()}
    corpus = write_corpus(data, name, sources, origin, replace=replace)

    # What was taken is told with what was left out: neither is to surprise anyone later.
    documents, size = (sum(corpus.splits[split][key] for split in sources) for key in ("documents", "bytes"))
    each = ", ".join(f"{split} {corpus.splits[split]['documents']:,}" for split in sources)
    took = f"{count(len(contents.taken), 'file')}, {count(documents, 'document')} ({each}), {size:,} bytes"
    logger.info(f"{name}: took {took}{contents.describe_left_out()}")
    if shared := find_trained_on(corpus):
        names = one_line(", ".join(shared[:3]) + ", …" * (len(shared) > 3))
        much = f"much of {count(len(shared), 'document')} of validation and test ({names}) stands in train as well"
        warnings.warn(f"{name}: {much}, so that figures would be of text that was trained on", stacklevel=2)
    return corpus


def _import_tokenizer(data: Path, name: str, folder: Path, origin: str, *, replace: bool) -> Corpus:
    """Import GPT-2's `vocab.json` and `merges.txt`, checked by their known sums if there are any."""
    path, hub = data / name, get_known(name).hub
    refuse_no_corpus(path)
    BpeTokenizer.gpt2(folder)
    if wrong := [file for file, wanted in (hub.sums if hub else {}).items() if sha256(folder / file) != wanted]:
        raise MissingError(f"{folder / wrong[0]} is in GPT-2's form, and is not GPT-2's; {remedy(name)}")
    if path.exists() and not replace:
        raise UsageError(f"{path} is here already; --replace puts the new one in its place")
    corpus = copy_corpus(data, name, [folder / "vocab.json", folder / "merges.txt"], origin)
    logger.info(f"{name}: took 2 files, {sum(file.bytes for file in corpus.files.values()):,} bytes")
    return corpus


def own_name(source: Path) -> str:
    """Make a name for the user's own texts, different for different texts. MissingError if there are none."""
    digest = hashlib.sha256()
    for path in find_texts(Contents(source)):
        digest.update(f"{path.name}\0".encode("utf-8", "surrogateescape"))  # if a name is not UTF-8, its bytes
        with blame_file(path):
            digest.update(bytes.fromhex(sha256(path)))
    slug = re.sub(r"[^a-z0-9]+", "-", source.absolute().name.lower()).strip("-")[:40]
    return "-".join(filter(None, ["text", slug, digest.hexdigest()[:8]]))
