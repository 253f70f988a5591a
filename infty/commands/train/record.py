"""The records that a run writes of itself: settings, environment, tokeniser, metrics, status."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError, Stopped
from infty.base.files import read_json, replace_folder, write_json
from infty.commands.load import locate_tokenizer
from infty.commands.train.session import Session
from infty.machine.environment import describe_environment
from infty.model.interface import count_parameters
from infty.runs.folder import RunFolder, differences
from infty.runs.metrics import MetricsFile, ScreenProgress, Sink
from infty.runs.wandb import WandbRun

Values = dict[str, Any]
logger = logging.getLogger(__name__)


def write_run_header(session: Session) -> Values:
    """Write and log what is trained and with what; warn if software has changed. Return `environment.json`."""
    s = session
    if not s.group.leads:
        return {}

    # The environment, with the command that gives the same numbers again.
    command = " ".join([s.cell.command, *s.settings.options])
    environment = {**describe_environment(s.machine), "command": command}
    file = s.run.path / "environment.json"
    before = _read_environment(file)
    if before and (changed := differences({**before, "command": command}, environment)):
        warnings.warn(f"this run began in another environment: {'; '.join(changed)}", stacklevel=2)

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


def _read_environment(file: Path) -> Values | None:
    """Read the environment that a run began in; None if it begins, or if the file is damaged."""
    try:
        return read_json(file, "it is written anew") if file.exists() else None
    except MissingError as fault:
        warnings.warn(str(fault), stacklevel=3)
        return None


def open_sinks(session: Session) -> list[Sink]:
    """Open the sinks of metrics: a file, the screen and W&B; none in a process that does not lead."""
    s, key, state = session, session.cell.key, session.state
    if not s.group.leads:
        return []
    sinks: list[Sink] = [
        MetricsFile(s.run.metrics, state.step, validated=state.validated_step == state.step),
        ScreenProgress(f"{key.experiment} {key.model}@{key.case}", s.training.total_steps, state.step),
    ]
    if s.settings.wandb != "disabled":
        name, config = "/".join(key.folder.parts), s.cell.config
        sinks.append(WandbRun(s.run.path, state.wandb_id, name, s.settings.wandb_project, s.settings.wandb, config))
    return sinks


@contextlib.contextmanager
def track_status(run: RunFolder) -> Iterator[None]:
    """Keep `status.json` true while a run goes on and when it ends, whatever ends it."""
    run.write_status("running")
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        with contextlib.suppress(OSError):  # a full disk must not hide what failed
            run.write_status("stopped", "by a signal; the same command continues")
        raise
    except BaseException as fault:
        with contextlib.suppress(OSError):  # a full disk must not hide what failed
            run.write_status("failed", str(fault))
        raise
    run.write_status("done")
