"""`--dry-run`: sizes and predicted cost of a cell, from a short measured trial. Writes nothing."""

import math
from datetime import timedelta
from itertools import count
from typing import Any

from infty.base.errors import MissingError
from infty.commands.train.requirements import find_base, find_initial_weights
from infty.config.settings import Settings
from infty.corpora.gpt2_weights import is_on_the_hub
from infty.experiment import Cell, build_task
from infty.machine.placement import prepare_machine
from infty.machine.ram import count_held_bytes, forget_peak
from infty.memory.precision import ExactConstants
from infty.model.interface import SegmentModel, count_parameters
from infty.runs.folder import RunFolder
from infty.training.cost import RunCost, measure_run, measure_update, repeat, try_to_count_flops
from infty.training.data_parallel import refuse_uneven
from infty.training.limits import count_disk_bytes, count_usable_bytes

SECONDS = 5.0  # limit for filling memories, and again for the steps that are timed
CARDS = (16, 24, 40, 80)  # GB of memory that GPUs are sold with
FILLED = 0.9  # share of it that a model can use: the rest goes to the driver and to gaps
GUESSED = "; until then steps are reckoned from its published words"


def forecast(cell: Cell, settings: Settings) -> dict[str, Any]:
    """Predict sizes, FLOPs, memory and time from a few sequences' gradients; random tokens replace a missing text."""
    # Open the data, or what replaces it.
    experiment, machine, seed = cell.experiment, prepare_machine(settings), cell.key.seed
    why = None
    try:
        task = build_task(experiment, settings.data, make=False)
    except MissingError as fault:
        why = str(fault)
        if (task := experiment.task.stand_in(experiment.model.segment_length, why)) is None:
            raise
    start = _describe_start(cell, task.vocab_size, settings)

    # Count the bytes that the program holds before there is a model; then build the model.
    free = count_usable_bytes(machine)
    program = count_held_bytes(machine.device) if free is not None else 0
    model = machine.place(experiment.model.build(task.vocab_size, seed))
    memories = sum(parameter.numel() for parameter in model.memory_parameters())
    training = experiment.training.count_steps(task)
    refuse_uneven("training.batch_size", training.batch_size, machine.launch)
    steps, batches = training.total_steps, task.count_batches(training.total_steps, training.gradient_segments)
    tokens = task.count_tokens_seen(batches, training.batch_size)
    _, longest = task.list_stages(batches)[-1]

    # Measure the cost: a step is the gradients of its pieces, one piece after the other, and an update.
    cost, update = measure_run(model, task, training, seed, machine, SECONDS), measure_update(model, SECONDS)
    seconds = math.ceil(cost.own / cost.at_once) * cost.seconds.fixed + cost.own * cost.seconds.each + update
    rows, step = range(cost.tried[-1]), count()  # of other steps each time: what was made may be kept
    what = training.batch_size, seed, rows, training.gradient_segments
    made, _ = repeat(lambda: longest.training_batches(next(step), *what), model.device, SECONDS)

    # A curriculum's steps cost less at first.
    flops = try_to_count_flops(model.config, task, training, seed, steps)
    share = 1.0
    if longest is not task and flops:
        share = flops / (try_to_count_flops(model.config, longest, training, seed, steps) or flops)

    # Compare the memory that training takes with that of this device and of others.
    memory: dict[str, Any] = {}
    if free is not None:
        forget_peak(model.device)  # gives back what was freed
        held, evaluated = count_held_bytes(model.device), training.evaluation_batch_size
        memory = describe_memory(model, cost, evaluated, program, held, free)
    return {
        "command": cell.command,
        "folder": str(settings.runs / cell.key.folder),
        "parameters": count_parameters(model),
        "base_parameters": count_parameters(model) - memories,
        "memory_parameters": memories,
        "memory_slots": experiment.model.memory_slots,
        "memory_bytes_a_stream": cost.parts["memory"] // cost.own or None,
        "segment_length": experiment.model.segment_length,
        "steps": steps,
        "tokens": tokens,
        "passes": round(tokens / size, 2) if (size := task.tokens_per_epoch) else None,
        "flops_a_token": flops and round(flops / tokens),
        "training_flops": flops,
        "disk_megabytes": round(count_disk_bytes(model, task, training) / 1e6),
        "device": str(machine.device),
        "processes": machine.launch.size,
        "sequences_a_device": cost.own,
        "sequences_at_once": cost.at_once,
        "predicted_megabytes": memory,
        "seconds_a_step": round(seconds, 4),
        "predicted_training_seconds": round(seconds * steps * share, 2),
        "predicted_training_time": str(timedelta(seconds=round(seconds * steps * share))),
        "data_made_to_trained": round((cost.seconds.predict(cost.tried[-1]) + update) / made, 1),
        "predicted_from": f"steps of {' and '.join(map(str, cost.tried))} of the {cost.own} sequences"
        + (", without what processes say to each other" if machine.launch.size > 1 else ""),
        **({"text": why + GUESSED * bool(experiment.training.epochs)} if why else {}),
        **({"starting_weights": start} if start else {}),
    }


def describe_memory(
    model: SegmentModel, cost: RunCost, evaluated: int, program: int, held: int, free: int
) -> dict[str, Any]:
    """Describe in MiB what one device will hold, by parts; whether it fits, and how many sequences fit into others.

    evaluated: sequences evaluated at once. program, free: bytes held and free before the model; held: with it.
    """
    here, validating = program + free, held + cost.evaluation.predict(evaluated)

    def count_fitting(room: float) -> int | None:
        return cost.training.count_fitting(room - held, cost.own) or None if validating <= room else None

    total = max(held + cost.training.predict(cost.at_once), validating)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    weights += sum(module.constant_bytes for module in model.modules() if isinstance(module, ExactConstants))
    parts = {"program": program, "weights": weights, **cost.parts}
    sizes = {**parts, "activations": max(0.0, total - sum(parts.values())), "total": total, "free": here}
    cards = {f"{card} GB": count_fitting(FILLED * card * 1e9 + program) for card in CARDS}
    found = {**{name: round(size / 2**20, 1) for name, size in sizes.items()}, "largest_micro_batch": cards}
    if total <= here:
        return found
    fits = count_fitting(here)
    change = f"--micro-batch {fits}" if fits and fits < cost.at_once else "a larger device"
    return {**found, "does_not_fit": f"{change} does; --recompute and more devices make it less"}


def _describe_start(cell: Cell, vocab_size: int, settings: Settings) -> str | None:
    """Describe the weights that a GPT-2 would start from. Raises UsageError if they are here and don't fit."""
    if base := find_base(cell):
        run, first = RunFolder(settings.runs / base.key.folder), base.experiment.training
        todo = f"trained first, {first.steps or first.epochs} {'steps' if first.steps else 'epochs'} more"
        return f"{run.path} ({'here' if run.finished else todo})"
    try:
        start = find_initial_weights(cell.experiment, settings, may_fetch=False)
    except MissingError as fault:
        if not is_on_the_hub(str(cell.experiment.model.weights or "")):
            raise
        return f"not here yet, so random ones stand in: {fault}"
    if start is None:
        return None
    start.refuse_vocabulary(vocab_size)
    return f"{start.origin}, sha256 {start.sha256[:12]}"
