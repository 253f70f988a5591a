"""See to it that the corpus of an experiment is here before anything is built on it."""

import os

from rich.console import Console

from infty.corpora.generated import generated_sources
from infty.corpora.hub import fetch, is_offline
from infty.corpora.known import KNOWN
from infty.corpora.store import MANIFEST, open_corpus, remedy, write_corpus
from infty.errors import MissingError
from infty.experiment import Experiment
from infty.settings import Settings
from infty.tasks.corpus import CorpusConfig


def provide(experiment: Experiment, settings: Settings, console: Console) -> None:
    """Make or fetch what an experiment reads and this machine has not. Does nothing where everything is here.

    MissingError, with the commands that help, where that can't be: a corpus of one's own, no network, or fetching
    switched off (`auto_fetch = false`, HF_HUB_OFFLINE).
    """
    task = experiment.task
    if not isinstance(task, CorpusConfig):
        return
    if task.tokenizer.kind == "gpt2" and not (settings.data / "gpt2" / MANIFEST).is_file():
        _bring("gpt2", list(KNOWN["gpt2"].hub.files) if KNOWN["gpt2"].hub else [], settings, console)
    if not (settings.data / task.corpus / MANIFEST).is_file():
        _bring(task.corpus, sorted({portion.split for portion in task.portions.values()}), settings, console)


def _bring(name: str, parts: list[str], settings: Settings, console: Console) -> None:
    if name == "generated":
        write_corpus(settings.data, name, generated_sources(), "made by infty", console, replace=False)
        return
    if name not in KNOWN:
        open_corpus(settings.data, name)  # says what is missing
    if not settings.auto_fetch or is_offline():
        why = "auto_fetch is off" if not settings.auto_fetch else "HF_HUB_OFFLINE is set"
        raise MissingError(f"no corpus {name!r} in {settings.data}, and {why}; {remedy(name)}")
    fetch(settings.data, name, parts, console, replace=False)
