"""`--dry-run`: what a cell is and what it will cost, from its sizes and a short measured probe. Writes nothing."""

from datetime import timedelta
from typing import Any

import numpy as np
import torch

from infty.base.batch import Batch
from infty.base.errors import MissingError
from infty.commands.train.initial_weights import find_base, find_initial_weights
from infty.config.settings import Settings
from infty.corpora.gpt2_weights import is_on_the_hub
from infty.corpora.registry import KNOWN
from infty.experiment import Cell, build_model, build_task
from infty.machine.placement import Machine, prepare_machine
from infty.machine.ram import held_memory_bytes
from infty.model.interface import SegmentModel, count_parameters
from infty.runs.folder import RunFolder
from infty.tasks.corpus import CorpusConfig
from infty.training.config import TrainingConfig
from infty.training.cost.budget import Budget, Room
from infty.training.cost.precheck import disk_bytes, evaluation_need, free_bytes
from infty.training.cost.probe import probe
from infty.training.data_parallel import refuse_uneven

TOKENS_A_WORD = 1.3  # of a byte-level BPE, about: GPT-2's has 1.15 on WikiText, 1.5 on books with their line ends


def forecast(cell: Cell, settings: Settings) -> dict[str, Any]:
    """Sizes, FLOPs a token, and the training time that a few real steps predict.

    A text that is not here yet is stood in for by random tokens; then the number of tokens in it is not known.
    """
    experiment, machine = cell.experiment, prepare_machine(settings)
    try:
        task = build_task(experiment, settings.data, make=False)
    except MissingError as fault:
        if not isinstance(experiment.task, CorpusConfig):
            raise
        task = RandomTokens(experiment.task, experiment.model.segment_length, str(fault))
    start = _start(cell, task.vocab_size, settings)
    room = _room(machine)
    model = machine.place(build_model(experiment, task.vocab_size, cell.key.seed))
    memories = sum(parameter.numel() for parameter in model.memory_parameters())
    training = experiment.training.counted(task.steps_an_epoch)
    refuse_uneven("training.batch_size", training.batch_size, machine.launch)
    steps, own = training.total_steps, training.batch_size // machine.launch.size
    at_once = min(own, machine.micro_batch or own)
    found = probe(model, task, training, cell.key.seed, own, at_once)
    seconds = found.step_seconds(own, at_once)
    together = machine.launch.size > 1
    evaluation = _evaluation(model, task, training) if found.peak else 0
    budget = Budget(model, found, own, evaluation, together, room)
    tokens = task.tokens_seen(steps, training.batch_size)
    return {
        "command": cell.command,
        "folder": str(settings.runs / cell.key.folder),
        "parameters": count_parameters(model),
        "base_parameters": count_parameters(model) - memories,
        "memory_parameters": memories,
        "memory_slots": experiment.model.memory_slots,
        "memory_bytes_a_stream": found.state or None,
        "segment_length": experiment.model.segment_length,
        "steps": steps,
        "tokens": tokens,
        "passes": round(tokens / size, 2) if (size := _size(task)) else None,
        "flops_a_token": found.flops_a_token,
        "training_flops": found.flops_a_token * tokens,
        "disk_megabytes": round(disk_bytes(model, task, training) / 1e6),
        "device": str(machine.device),
        "processes": machine.launch.size,
        "sequences_a_device": own,
        "sequences_at_once": at_once,
        "predicted_megabytes": budget.document(at_once),
        "seconds_a_step": round(seconds, 4),
        "predicted_training_seconds": round(seconds * steps, 2),
        "predicted_training_time": str(timedelta(seconds=round(seconds * steps))),
        "data_made_to_trained": round(found.made_to_trained, 1),
        "predicted_from": f"steps of {' and '.join(map(str, sorted(set(found.seconds.rows))))} of the {own} sequences"
        + (", without what processes say to each other" if together else ""),
        **({"text": _text(task, experiment.training)} if isinstance(task, RandomTokens) else {}),
        **({"starting_weights": start} if start else {}),
    }


def _room(machine: Machine) -> Room:
    """Bytes of the device that are held and free now."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # loads what is the program's too
    try:
        return Room(held_memory_bytes(machine.device), free_bytes(machine))
    except OSError:
        return Room(0, None)


def _evaluation(model: SegmentModel, task: Any, training: TrainingConfig) -> int:
    """Bytes that a validation takes beyond what is held; 0 of a text that is not here."""
    if isinstance(task, RandomTokens):
        return 0
    wanted = training.evaluation_batch_size
    return evaluation_need(model, task, wanted).of(wanted)


def _text(task: "RandomTokens", training: TrainingConfig) -> str:
    """Why random tokens stand in, and what that makes a guess."""
    return task.why + ("; until then steps are reckoned from its published words" if training.epochs else "")


def _start(cell: Cell, vocab_size: int, settings: Settings) -> str | None:
    """Where a GPT-2 would start from, and whether that is here. UsageError where it is, and does not fit."""
    if base := find_base(cell):
        run, first = RunFolder(settings.runs / base.key.folder), base.experiment.training
        todo = f"trained first, {first.steps or first.epochs} {'steps' if first.steps else 'epochs'} more"
        return f"{run.path} ({'here' if run.finished else todo})"
    try:
        start = find_initial_weights(cell.experiment, settings, may_fetch=False)
    except MissingError as fault:
        if not is_on_the_hub(str(getattr(cell.experiment.model, "weights", ""))):
            raise
        return f"not here yet, so random ones stand in: {fault}"
    if start is None:
        return None
    start.refuse_vocabulary(vocab_size)
    return f"{start.origin}, sha256 {start.sha256[:12]}"


def _size(task: Any) -> int | None:
    """Tokens of one pass over the training data; None where they are not known."""
    if isinstance(task, RandomTokens):
        return None
    parts = getattr(task, "parts", None)
    return len(parts["train"].tokens) if parts else task.sizes["train"] * task.sequence_length


class RandomTokens:
    """Stands in for a text that is not here: a model does the same work for any tokens."""

    continues, has_answers = True, False

    def __init__(self, config: CorpusConfig, segment_length: int, why: str) -> None:
        self.config, self.segment_length, self.why = config, segment_length, why
        self.vocab_size = config.tokenizer.vocab_size

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Tokens in the proportions of a text: the n-th most frequent 1/n times as often (Zipf)."""
        random = np.random.Generator(np.random.Philox(key=step))
        size = (batch_size, self.segment_length + 1)
        tokens = np.exp(random.random(size) * np.log(self.vocab_size)).astype(np.int64) - 1
        own = torch.from_numpy(tokens)[range(batch_size) if rows is None else rows]
        names = torch.arange(batch_size) if rows is None else torch.tensor(rows)
        return Batch(own[:, :-1], own[:, 1:], names, torch.full((len(own),), step == 0))

    def steps_an_epoch(self, batch_size: int) -> int:
        """Roughly how many steps, from the corpus's known words and documents. MissingError where none are known."""
        known, part = KNOWN.get(self.config.corpus), self.config.train
        words = known.words.get(part.split) if known else None
        if known is None or words is None or (part.last is not None and part.split not in known.documents):
            raise MissingError(f"how long an epoch takes is known once the text is here: {self.why}")
        share = 1.0 if part.last is None else (part.last - part.first) / known.documents[part.split]
        tokens = words * share * (1.0 if self.config.tokenizer.kind == "word" else TOKENS_A_WORD)
        return -int(-tokens // (batch_size * self.segment_length))

    def tokens_seen(self, steps: int, batch_size: int) -> int:
        """Tokens of the first `steps` batches, in which every segment is full."""
        return steps * batch_size * self.segment_length
