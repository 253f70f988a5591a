"""`--dry-run`: what a cell is and what it will cost, from its sizes and a short measured probe. Writes nothing."""

import time
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from infty.environment import peak_memory_bytes
from infty.errors import MissingError
from infty.experiment import ResolvedCell, build_model, build_task
from infty.interfaces import Batch, TrainingData
from infty.model.decoder import Decoder, State, count_parameters
from infty.model.state import state_tensors
from infty.settings import Settings
from infty.tasks.corpus import CorpusConfig
from infty.training.loop import TrainingConfig, optimize
from infty.training.optimizer import make_optimizer
from infty.workflow import prepare_machine

PROBE_SECONDS = 5.0
MADE = 20  # batches made, to tell how much quicker than training that is


def forecast(resolved: ResolvedCell, settings: Settings) -> dict[str, Any]:
    """Sizes, FLOPs a token, and the training time that a few real steps predict.

    A text that is not here yet is stood in for by random tokens; then the number of tokens in it is not known.
    """
    experiment, machine = resolved.experiment, prepare_machine(settings)
    try:
        task = build_task(experiment, settings.data, make=False)
    except MissingError as fault:
        if not isinstance(experiment.task, CorpusConfig):
            raise
        task = RandomTokens(experiment.task.tokenizer.vocab_size, experiment.model.segment_length, str(fault))
    model = machine.place(build_model(experiment, task.vocab_size, resolved.cell.seed))
    training = experiment.training
    probe = _probe(model, task, training, resolved.cell.seed)
    seconds = probe["seconds"] * training.batch_size / probe["batch"]
    tokens = task.tokens_seen(training.steps, training.batch_size)
    return {
        "command": resolved.command(),
        "folder": str(settings.runs / resolved.cell.folder),
        "parameters": count_parameters(model),
        "memory_slots": experiment.model.memory_slots,
        "memory_bytes_a_stream": probe["state_bytes"],
        "segment_length": experiment.model.segment_length,
        "steps": training.steps,
        "tokens": tokens,
        "passes": round(tokens / size, 2) if (size := _size(task)) else None,
        "flops_a_token": round(probe["flops"] / probe["tokens"]),
        "device": str(machine.device),
        "peak_memory_mb": round(peak_memory_bytes(machine.device) / 2**20),
        "seconds_a_step": round(seconds, 4),
        "predicted_training_seconds": round(seconds * training.steps, 2),
        "predicted_training_time": str(timedelta(seconds=round(seconds * training.steps))),
        "data_made_to_trained": round(probe["made"] * probe["seconds"], 1),
        "predicted_from": f"{probe['steps']} steps of {probe['batch']} of the {training.batch_size} sequences",
        **({"text": task.why} if isinstance(task, RandomTokens) else {}),
    }


def _probe(model: Decoder, task: TrainingData, training: TrainingConfig, seed: int) -> dict[str, Any]:
    """Real steps, with as many sequences as a few seconds allow, after some that fill the memory."""
    optimizer = make_optimizer(model, training.learning_rate)
    batch, state, step = 1, None, 0

    def once() -> float:
        nonlocal state, step
        start = time.perf_counter()
        config = training.model_copy(update={"batch_size": batch})
        _, state = optimize(model, optimizer, task, config, step, seed, state)
        step += 1
        return time.perf_counter() - start

    once()
    first = once()
    batch = max(1, min(training.batch_size, int(PROBE_SECONDS / 5 / first)))
    state, step = None, 0
    for _ in range(2 if first > PROBE_SECONDS / 5 else 4):
        once()
    times = [once()]
    while len(times) < 5 and sum(times) < PROBE_SECONDS:
        times.append(once())
    with FlopCounterMode(display=False) as counter:
        once()
    start = time.perf_counter()
    for later in range(step, step + MADE):
        task.training_batch(later, batch, seed)
    return {
        "batch": batch,
        "seconds": float(np.median(times)),
        "made": MADE / (time.perf_counter() - start),
        "steps": len(times),
        "flops": counter.get_total_flops(),
        "tokens": task.training_batch(step - 1, batch, seed).tokens.numel(),
        "state_bytes": _bytes(state) // batch if state else None,
    }


def _bytes(state: State) -> int:
    return sum(tensor.nbytes for tensor in state_tensors(state).values())


def _size(task: Any) -> int | None:
    """Tokens of one pass over the training data; None where they are not known."""
    if isinstance(task, RandomTokens):
        return None
    parts = getattr(task, "parts", None)
    return len(parts["train"].tokens) if parts else task.sizes["train"] * task.sequence_length


class RandomTokens:
    """Stands in for a text that is not here: a model does the same work for any tokens."""

    continues, has_answers = True, False

    def __init__(self, vocab_size: int, segment_length: int, why: str) -> None:
        self.vocab_size, self.segment_length, self.why = vocab_size, segment_length, why

    def training_batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Tokens in the proportions of a text: the n-th most frequent 1/n times as often (Zipf)."""
        random = np.random.Generator(np.random.Philox(key=step))
        size = (batch_size, self.segment_length + 1)
        tokens = np.exp(random.random(size) * np.log(self.vocab_size)).astype(np.int64) - 1
        whole = torch.from_numpy(tokens)
        return Batch(whole[:, :-1], whole[:, 1:], torch.arange(batch_size), torch.full((batch_size,), step == 0))

    def tokens_seen(self, steps: int, batch_size: int) -> int:
        """Every segment is full."""
        return steps * batch_size * self.segment_length
