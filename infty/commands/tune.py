"""`infty tune`: try a stated grid for every row of a table, with the same budget, on validation only."""

import itertools
import json
import logging
import shlex
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, ValidationError

from infty.base.errors import InftyError, MissingError, UsageError, suggest
from infty.base.files import Strict
from infty.commands.train import train_trial
from infty.config.definition import CellKey, Definition, Values, variant_of
from infty.config.faults import Fault, raise_faults
from infty.config.settings import Settings
from infty.experiment import resolve
from infty.machine.placement import prepare_machine
from infty.runs.folder import trials_folder
from infty.runs.schemas import Trial, Tuning

logger = logging.getLogger(__name__)


class TuneConfig(Strict):
    """`scales.<scale>.tune.<column>` of an experiment: the grid, and the budget of each of its points."""

    steps: Annotated[int, Field(gt=0)]
    grid: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)] = 0

    def points(self) -> list[Values]:
        """List every combination of values."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


def tune(definition: Definition, scale: str, case: str | None, settings: Settings) -> dict[str, Tuning]:
    """Train each row at each point of a column's grid, or go on where that stopped; write `tuning-<column>.json`.

    case: the column; None for all that have a grid. Returns what was written, by column. The test split is never read.
    A point at which training fails is recorded as failed.

    Raises:
        UsageError: The experiment states no grid, or a faulty one.
    """
    configs = tune_configs(definition, scale, case)
    return {case: _tune_column(definition, scale, case, config, settings) for case, config in configs.items()}


def _tune_column(definition: Definition, scale: str, case: str, config: TuneConfig, settings: Settings) -> Tuning:
    file = settings.runs / definition.name / scale / f"tuning-{case}.json"  # a report looks for it
    rows = list(dict.fromkeys(cell.model for cell in definition.cells(scale)))
    points, trials = config.points(), []
    for model, point in itertools.product(rows, points):
        number = f"trial {len(trials) + 1} of {len(rows) * len(points)}"
        logger.info(f"{number}: {model}@{case}, {', '.join(f'{key} = {value}' for key, value in point.items())}")
        key = CellKey(definition.name, scale, model, case, config.seed)
        trials.append(_trial(definition, key, config, point, settings))
    environment = prepare_machine(settings).describe_environment()
    place = {"experiment": definition.name, "scale": scale, "case": case}
    record = Tuning(
        **place,
        **config.model_dump(),
        chosen={model: _choose(trials, model) for model in rows},
        trials=trials,
        **{key: environment[key] for key in ("commit", "dirty")},
        command=shlex.join(["infty", "tune", definition.source, "--case", case, "--scale", scale]),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    record.write(file)
    logger.info(f"recorded: {file}")
    return record


def tune_configs(definition: Definition, scale: str, case: str | None = None) -> dict[str, TuneConfig]:
    """Read the grids by column. case: the only column; None: all. UsageError if there is none, or one is faulty."""
    raise_faults(definition.faults)
    definition.check_names(scales=scale)
    where, known = f"scales.{scale}.tune", definition.names("cases")
    stated = definition.tune(scale)
    if not isinstance(stated, dict) or not stated:
        example = f"{{{known[0]}: {{steps: 300, grid: {{training.learning_rate: [1.0e-3, 3.0e-3]}}}}}}"
        raise UsageError(f"{definition.path.name} states nothing to tune; for example {where}: {example}")
    configs: dict[str, TuneConfig] = {}
    faults = []
    for column, values in stated.items():
        try:
            configs[column] = TuneConfig.model_validate(values)
        except ValidationError as error:
            faults += [(".".join(map(str, (where, column, *f["loc"]))), f["msg"]) for f in error.errors()]
        if column not in known:
            faults.append((f"{where}.{column}", f"no such column; {suggest(str(column), known)}"))
    raise_faults([Fault(definition.path.name, key, message) for key, message in faults])
    if case is not None and case not in configs:
        raise UsageError(f"{definition.path.name}: {where} has no grid for {case!r}; {suggest(case, list(configs))}")
    return configs if case is None else {case: configs[case]}


def _trial(definition: Definition, key: CellKey, config: TuneConfig, point: Values, settings: Settings) -> Trial:
    sets = [f"training.steps={config.steps}", *(f"{key}={json.dumps(value)}" for key, value in point.items())]
    if resolve(definition, key).experiment.training.epochs is not None:
        sets.append("training.epochs=null")
    key = replace(key, variant=variant_of(sets, None))
    cell = resolve(definition, key, sets)
    trial = {"model": key.model, "settings": point, "command": cell.command, "validation_loss": None}
    folder = trials_folder(settings.runs) / key.folder
    try:
        found = train_trial(cell, settings, folder)
    except (MissingError, UsageError):  # it concerns the whole table, not this point alone
        raise
    except InftyError as fault:
        logger.info(f"this point fails: {fault}")
        return Trial(**trial, why=str(fault).replace(f"{folder}/", ""))
    return Trial.model_validate({**trial, **found})


def _choose(trials: list[Trial], model: str) -> Values | None:
    """Choose the settings of a row's lowest validation loss; None if every point failed."""
    own = [(loss, t.settings) for t in trials if t.model == model and (loss := t.validation_loss) is not None]
    return min(own, key=lambda pair: pair[0])[1] if own else None
