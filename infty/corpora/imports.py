"""Import a corpus from a folder or an archive of one's own."""

import hashlib
import re
from pathlib import Path

from infty.base.errors import MissingError, UsageError
from infty.base.files import sha256
from infty.base.messages import LONG, one_line
from infty.corpora.archives import open_folder
from infty.corpora.hub import import_tokenizer
from infty.corpora.inventory import ORIGIN
from infty.corpora.layouts import find_pg19, find_text, find_wikitext, refuse_missing_shards, text_files
from infty.corpora.registry import KNOWN
from infty.corpora.store import NAME, Corpus, write_corpus

FINDERS = {"wikitext": find_wikitext, "pg19": find_pg19, "text": find_text}


def import_corpus(data: Path, name: str, source: Path, *, replace: bool) -> Corpus:
    """Copy, count and check what is in `source`; any name that is not a known corpus's is plain text.

    MissingError if it is something else or damaged, UsageError for a name that can't be, or that is taken by another
    corpus if `replace` is not asked for, InftyError on a full disk. Nothing half-made is left by any.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} can't be a corpus's name: wanted lower-case letters, digits, '-', '_' and '.'")
    layout = KNOWN[name].layout if name in KNOWN else "text"
    if layout == "generated":
        raise UsageError(f"{name} is made by infty and not imported")
    with open_folder(source, data) as folder:
        if layout == "tokenizer":
            return import_tokenizer(data, name, folder, ORIGIN, replace=replace)
        refuse_missing_shards(folder)
        return write_corpus(data, name, FINDERS[layout](folder), ORIGIN, replace=replace)


def own_name(source: Path) -> str:
    """Make a name for one's own texts, another one whenever they are others. MissingError if there are none."""
    digest = hashlib.sha256()
    for path in text_files(source):
        digest.update(f"{path.name}\0".encode("utf-8", "surrogateescape"))  # of a name that is no UTF-8 its bytes
        try:
            digest.update(bytes.fromhex(sha256(path)))
        except OSError as fault:
            why = f"{path} can't be read ({fault.strerror}); take it away or mend it"
            raise MissingError(one_line(why, LONG)) from None
    slug = re.sub(r"[^a-z0-9]+", "-", source.absolute().name.lower()).strip("-")[:40]
    return f"text-{slug}-{digest.hexdigest()[:8]}" if slug else f"text-{digest.hexdigest()[:8]}"
