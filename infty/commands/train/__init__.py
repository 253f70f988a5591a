"""`infty train`: open a session, train, test, and write the result."""

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from infty.base.errors import BusyError, MissingError, Stopped
from infty.base.files import read_json, replace_folder, write_json
from infty.commands.evaluate import EvaluationRequest, evaluate_run
from infty.commands.load import load_beside, locate_tokenizer
from infty.commands.train.requirements import InitialWeights, find_base, find_initial_weights, load_trained_weights
from infty.commands.train.session import OTHER_SETTINGS, Session, bring_data, open_session
from infty.config.definition import Values
from infty.config.settings import Settings
from infty.experiment import Cell
from infty.machine.launch import detect_launch
from infty.machine.placement import Machine, prepare_machine
from infty.machine.ram import count_peak_bytes
from infty.model.interface import count_parameters
from infty.runs.folder import RunFolder, differences
from infty.runs.metrics import MetricsFile, ScreenProgress, Sink, Sinks, WandbRun
from infty.runs.schemas import FLOPS_COUNTED_BY, Evaluation, Result
from infty.training.cost import try_to_count_flops
from infty.training.data_parallel import refuse_uneven
from infty.training.distributed import Group, process_group
from infty.training.limits import explain_out_of_memory
from infty.training.loop import train
from infty.training.signals import StopSignals

logger = logging.getLogger(__name__)


def train_cell(cell: Cell, settings: Settings, *, fresh: bool) -> Result | None:
    """Train one cell, or go on where it stopped; then test its best checkpoint, also with its memory emptied.

    The result of a finished run is returned as it is, by the process that leads. With `fresh`, an earlier run is
    removed once everything that a new one needs is there.

    Raises:
        UsageError: The folder holds a run with other settings.
        MissingError: A text is missing.
        Stopped: A signal came.
        InftyError: Training fails.
    """
    run = RunFolder(settings.runs / cell.key.folder)
    with _open(cell, run, settings, fresh=fresh) as session:
        return _complete(run, session)


def train_trial(cell: Cell, settings: Settings, folder: Path) -> Values:
    """Train a cell in `folder` without a test; return its best validation and its cost. Raises as `train_cell`."""
    with _open(cell, RunFolder(folder), settings, fresh=False) as session:
        assert session is not None, "a trial has no result that could be there"
        with _guard_run(session) as stop, _train(session, stop):
            state = session.state
            return {"validation_loss": state.best_loss, "best_step": state.best_step, **session.describe_costs()}


@contextlib.contextmanager
def _open(cell: Cell, run: RunFolder, settings: Settings, *, fresh: bool) -> Iterator[Session | None]:
    """Join the processes that train together, ensure the initial weights, and open a session."""
    machine = prepare_machine(settings)
    for part in ("training", "pretraining"):
        if config := getattr(cell.experiment, part):
            refuse_uneven(f"{part}.batch_size", config.batch_size, machine.launch)
    with process_group(machine.launch, machine.device) as group:
        initial = _ensure_initial_weights(cell, run, settings, machine, group, fresh=fresh)
        with open_session(cell, run, settings, machine, group, initial, fresh=fresh) as session:
            yield session


def _complete(run: RunFolder, session: Session | None) -> Result | None:
    """Train and test a run and write its result, or read the result of a finished one; return it."""
    if session is None:
        found = run.result() if detect_launch().leads else None  # first: a damaged one is not finished
        logger.info(f"already finished: {run.path} (train again with --fresh)")
        return found
    with _guard_run(session) as stop:
        with _train(session, stop) as (environment, log):
            test = _test(session, stop)
            peak = session.group.find_largest(count_peak_bytes(session.machine.device))
            if test:
                log.log(session.state.step, test.metrics)
        return _finish(session, test, peak, environment) if test else None


def _ensure_initial_weights(
    cell: Cell, run: RunFolder, settings: Settings, machine: Machine, group: Group, *, fresh: bool
) -> InitialWeights | None:
    """Find the weights that a run starts from, or train them; None if it needs none, or has begun already."""
    if not cell.experiment.model.fine_tunes:
        return None
    if not fresh:
        with group.take_turns():
            run.refuse_another(cell.config, OTHER_SETTINGS)
        if group.is_true_anywhere(group.leads and (run.finished or run.begun)):
            return None
    with group.take_turns():
        found = find_initial_weights(cell.experiment, settings, may_fetch=settings.auto_fetch)
    if base := find_base(cell):
        with group.take_turns():  # a missing text of the row is noticed before anything is trained
            bring_data(cell, settings)
        found = _ensure_base(base, settings, machine, group)
    return found


def _ensure_base(base: Cell, settings: Settings, machine: Machine, group: Group) -> InitialWeights:
    """Train the weights that all rows start from, if they are not here or are of another text, or wait for them."""
    run, fresh = RunFolder(settings.runs / base.key.folder), False
    while True:
        # Train them if nobody has, and load them.
        found, why = None, ""
        try:
            if fresh or not group.is_true_anywhere(group.leads and run.finished):
                logger.info("all rows start from one GPT-2 without a memory, which is trained first")
                with open_session(base, run, settings, machine, group, fresh=fresh) as session:
                    _complete(run, session)
            found = load_trained_weights(base, settings)
        except BusyError:  # another process trains them, and its weights are as good
            logger.info(f"waiting for another process, which trains {run.path}")
            while group.is_true_anywhere(group.leads and bool(run.is_locked())):
                time.sleep(1)
            fresh = False  # that process began anew as well
            continue
        except MissingError as fault:
            if fresh:
                raise
            why = str(fault)

        # Agree: all processes have them, or all begin anew.
        if not group.is_true_anywhere(found is None):
            assert found is not None
            return found
        logger.info(f"the GPT-2 that all rows start from is trained again: {why}")
        fresh = True


@contextlib.contextmanager
def _guard_run(session: Session) -> Iterator[StopSignals]:
    """Note signals, keep `status.json` up to date, and explain the errors of a lost process and of a full device."""
    group = session.group
    status = _track_status(session.run) if group.leads else nullcontext()
    full = explain_out_of_memory(session.machine.device)
    with StopSignals(insist=group.size == 1) as stop, status, group.explain_lost_process(), full:
        yield stop


@contextlib.contextmanager
def _track_status(run: RunFolder) -> Iterator[None]:
    """Keep `status.json` up to date while a run goes on and when it ends, whatever ends it."""
    run.write_status("running")
    try:
        yield
    except BaseException as fault:
        by_signal = isinstance(fault, Stopped | KeyboardInterrupt)
        why = ("stopped", "by a signal; the same command continues") if by_signal else ("failed", str(fault))
        with contextlib.suppress(OSError):  # a full disk must not hide what failed
            run.write_status(*why)
        raise
    run.write_status("done")


@contextlib.contextmanager
def _train(session: Session, stop: StopSignals) -> Iterator[tuple[Values, Sinks]]:
    """Write the run's header and take the steps that are left; metrics can be logged until the block ends."""
    s, seed, folder = session, session.cell.key.seed, session.run.checkpoints
    environment = _write_header(s) if s.group.leads else {}
    with Sinks(_open_sinks(s) if s.group.leads else []) as log:
        train(s.replica, s.task, s.training, seed=seed, folder=folder, begin=s.begin, log=log.log, stop=stop)
        yield environment, log


def _write_header(session: Session) -> Values:
    """Write and log what is trained and with what; warn if software has changed. Return `environment.json`."""
    # The environment, with the command that gives the same numbers again.
    s, file = session, session.run.path / "environment.json"
    command = " ".join([s.cell.command, *s.settings.options])
    environment = {**s.machine.describe_environment(), "command": command}
    try:
        before = read_json(file, "it is written anew") if file.exists() else None
        if before and (changed := differences({**before, "command": command}, environment)):
            warnings.warn(f"this run began in another environment: {'; '.join(changed)}", stacklevel=2)
    except MissingError as fault:
        warnings.warn(str(fault), stacklevel=2)

    # The settings, and the tokeniser that weights mean nothing without.
    s.run.write_config(s.cell.config)
    write_json(file, environment)
    if s.task.tokenizer:
        with replace_folder(locate_tokenizer(s.run)) as temporary:
            s.task.tokenizer.save(temporary)
    key, step = s.cell.key, s.state.step
    begin = f"continuing at step {step} of" if s.begin.tensors else "training for"
    logger.info(
        f"{key.experiment} {key.model}@{key.case}, {key.scale} scale, seed {key.seed}: {begin} "
        f"{s.training.total_steps:,} steps, {count_parameters(s.model):,} parameters, {s.run.path}"
    )
    return environment


def _open_sinks(session: Session) -> list[Sink]:
    s, key, state = session, session.cell.key, session.state
    sinks: list[Sink] = [
        MetricsFile(s.run.metrics, state.step, validated=state.validated_step == state.step),
        ScreenProgress(f"{key.experiment} {key.model}@{key.case}", s.training.total_steps, state.step),
    ]
    if s.settings.wandb != "disabled":
        place = {"project": s.settings.wandb_project, "name": "/".join(key.folder.parts), "id": state.wandb_id}
        sinks.append(WandbRun(**place, dir=s.run.path, mode=s.settings.wandb, config=s.cell.config))
    return sinks


def _test(session: Session, stop: StopSignals) -> Evaluation | None:
    """Test the best checkpoint, then with its memory emptied, if any; only the process that leads returns the test."""
    s = session
    with s.group.take_turns():  # the one that leads has written it
        trained = load_beside(s.run, s.task)
    s.machine.place(trained.model)
    test = evaluate_run(trained, s.task, EvaluationRequest(), stop, s.group, s.run.path / "eval")
    if trained.model.memories:
        logger.info("tested again with the memory emptied: what the row owes to it")
        evaluate_run(trained, s.task, EvaluationRequest(knock_out="zero"), stop, s.group, s.run.path / "eval")
    return test


def _finish(session: Session, test: Evaluation, peak: int, environment: Values) -> Result:
    """Write `result.json`, and return it. peak: bytes of memory of the process that held the most."""
    s, state = session, session.state
    flops = try_to_count_flops(s.model.config, s.task, s.training, s.cell.key.seed, state.step)
    result = Result.model_validate(
        {
            **s.cell.config["cell"],
            **{key: getattr(test, key) for key in ("metrics", "totals", "calibration", "protocol", "data")},
            "training_data": s.task.describe_data("train"),
            "starting_weights": state.starting_weights,
            "best_step": test.step,
            "best_validation_loss": state.best_loss,
            "parameters": count_parameters(s.model),
            "memory_slots": s.cell.experiment.model.memory_slots,
            "state_bytes": s.cell.experiment.model.state_bytes,
            **s.describe_costs(),
            "training_flops": flops,
            "flops_counted_by": FLOPS_COUNTED_BY if flops else None,
            "peak_memory_bytes": peak,
            **{key: environment[key] for key in ("commit", "dirty", "command")},
        }
    )
    s.run.write_status("done")  # first: nobody comes back to a run that has its result
    result.write(s.run.path / "result.json")
    logger.info(f"finished: {s.run.path}; the tables: infty report")
    return result
