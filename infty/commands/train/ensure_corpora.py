"""Corpora that an experiment reads: made, imported or fetched before anything is built on them."""

from pathlib import Path

from infty.base.errors import MissingError, UsageError
from infty.base.messages import suggest
from infty.config.settings import Settings
from infty.corpora.hub import fetch, is_offline
from infty.corpora.imports import import_corpus
from infty.corpora.registry import KNOWN
from infty.corpora.store import MANIFEST, Corpus, open_corpus, remedy, write_corpus
from infty.corpora.synthetic import make_sources
from infty.corpora.tokens import Portion
from infty.experiment import Experiment


def ensure_corpora(experiment: Experiment, settings: Settings, own: Path | None = None) -> None:
    """Make, import or fetch what an experiment reads and this machine has not. MissingError, with help, if it can't be.

    own: the user's texts that the experiment's corpus is named after.
    """
    task, texts = experiment.task, dict(experiment.task.texts)
    name = task.vocabulary_files
    if name and not (settings.data / name / MANIFEST).is_file():
        _bring(name, _list_splits(name), settings)
    if first := experiment.pretraining and experiment.pretraining.text:
        texts.setdefault(first.corpus, []).extend([first.train, first.validation])
    if own is not None:
        for name in task.texts:
            if not (settings.data / name / MANIFEST).is_file():
                import_corpus(settings.data, name, own, replace=False)
            del texts[name]
    for name, portions in texts.items():
        here = open_corpus(settings.data, name).splits if (settings.data / name / MANIFEST).is_file() else {}
        if lacking := {split: limit for split, limit in _count_documents(portions).items() if split not in here}:
            _bring(name, lacking, settings)


def _count_documents(portions: list[Portion]) -> dict[str, int | None]:
    """Count the documents that are read of each split; None: all."""
    counts: dict[str, int | None] = {}
    for portion in sorted(portions, key=lambda portion: portion.split):
        most, last = counts.get(portion.split, 0), portion.last
        counts[portion.split] = None if most is None or last is None else max(most, last)
    return counts


def _list_splits(name: str) -> dict[str, int | None]:
    hub = KNOWN[name].hub
    return dict.fromkeys(hub.files if hub else ())


def _bring(name: str, parts: dict[str, int | None], settings: Settings) -> None:
    if name not in KNOWN:
        raise MissingError(f"no corpus {name!r} in {settings.data}; {remedy(name)}")
    if name != "generated" and (not settings.auto_fetch or is_offline()):
        why = "auto_fetch is off" if not settings.auto_fetch else "HF_HUB_OFFLINE is set"
        raise MissingError(f"{settings.data} has no {name} ({', '.join(parts)}), and {why}; {remedy(name)}")
    fetch_known_corpus(name, parts, settings.data, replace=False)


def fetch_known_corpus(name: str, parts: dict[str, int | None], data: Path, *, replace: bool) -> Corpus:
    """Fetch or make a corpus that infty knows, or some parts of it. Raises UsageError if its name is not known."""
    if name not in KNOWN:
        raise UsageError(f"no corpus {name!r} on the hub; {suggest(name, KNOWN)}")
    if name == "generated":
        return write_corpus(data, name, make_sources(), "made by infty", replace=replace)
    return fetch(data, name, parts or _list_splits(name), replace=replace)
