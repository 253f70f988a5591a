"""Options that several commands share, and the typed sets of them that commands take."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from typer import Argument, BadParameter, Option
from typer.core import TyperGroup

from infty.cli.completion import complete_experiment, complete_from
from infty.cli.output import read_settings

Experiment = Annotated[
    str, Argument(metavar="EXPERIMENT", help="Name or YAML file.", autocompletion=complete_experiment)
]
Scale = Annotated[str, Option(help="laptop, paper or smoke.", autocompletion=complete_from("scales"))]
Json = Annotated[bool, Option("--json", help="One JSON document on stdout, all else on stderr.")]
Runs = Annotated[Path | None, Option(help="Folder of the run folders.")]
Threads = Annotated[int | None, Option(min=1, help="CPU threads.")]


class Group(TyperGroup):
    """Commands whose options are refused in a user's words, where typer repeats pydantic's."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the words name. BadParameter, which typer shows, if one of its values is wrong."""
        try:
            return super().invoke(ctx)
        except BadParameter as fault:
            from pydantic import ValidationError

            from infty.config.faults import quote, reword

            if isinstance(fault.__cause__, ValidationError):
                detail = fault.__cause__.errors()[0]
                got = "" if detail["type"] == "value_error" else f", got {quote(detail['input'])}"
                fault.message = reword(detail) + got
            raise


@dataclass(frozen=True)
class CellOptions:
    """Options that name one cell of an experiment; with `data` its corpus is the user's own files."""

    experiment: Experiment
    model: Annotated[str, Option(help="Row of the table.", autocompletion=complete_from("models"))] = "infty"
    case: Annotated[str | None, Option(help="Column; by default the first.", autocompletion=complete_from("cases"))] = (
        None
    )
    scale: Scale = "laptop"
    seed: Annotated[
        int, Option(min=0, max=2**31 - 1, help="Decides initial weights, order of the data and dropout.")
    ] = 0
    overrides: Annotated[
        list[str] | None, Option("--set", metavar="KEY.PATH=VALUE", help="Change a setting; repeatable.")
    ] = None
    name: Annotated[str | None, Option("--name", help="Name of a run with other settings.")] = None
    data: Annotated[
        Path | None, Option("--data", metavar="FOLDER", help="Your own text files, split by documents.")
    ] = None

    def resolve_cell(self, machine: Any) -> Any:
        """Check the cell that the options name, and return it. UsageError with every fault."""
        from infty.config.definition import CellKey, open_experiment, variant_of
        from infty.experiment import refuse_own_texts, resolve

        name, overrides = self.name, self.overrides or []
        definition = open_experiment(self.experiment, machine.experiments)
        case = self.case or definition.names("cases")[0]
        key = CellKey(definition.name, self.scale, self.model, case, self.seed)
        if self.data is not None:
            from infty.corpora.imports import own_name

            refuse_own_texts(definition, key)
            corpus = own_name(self.data)
            name = name or (None if overrides else corpus)  # a table of its own (see report/load/collect.py)
            overrides = [*overrides, f"task.corpus={corpus}"]
        return resolve(definition, replace(key, variant=variant_of(overrides, name)), overrides, self.data)


@dataclass(frozen=True)
class MachineOptions:
    """Options that change this machine's settings for one command. `None` leaves a setting as it is."""

    runs: Runs = None
    device: Annotated[str | None, Option(help="auto, cpu, cuda or cuda:N.")] = None
    precision: Annotated[
        Literal["float32", "tf32", "bf16"] | None,
        Option(help="Of products; tf32 is a GPU's. The memory's are in float32."),
    ] = None
    compile: Annotated[bool | None, Option("--compile", help="Let torch.compile fuse what it can.")] = None
    micro_batch: Annotated[
        int | None, Option(min=1, help="Most training sequences at once on a device; changes dropout's draws only.")
    ] = None
    recompute: Annotated[
        bool | None, Option("--recompute", help="Keep no activations within layers: less memory, more time.")
    ] = None
    threads: Threads = None

    def read_settings(self) -> Any:
        """Read this machine's settings, with what the options change. UsageError with every fault."""
        return read_settings(**vars(self))


InferenceOptions = Annotated[MachineOptions, "runs", "device", "precision", "compile", "threads"]
TableOptions = Annotated[MachineOptions, "runs", "device", "precision", "threads"]

# The options at the end of every --help, after a command's own.
LAST = ("data", "as_json", *inspect.signature(MachineOptions).parameters)


def expand(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each dataclass among a command's parameters by its fields, from which typer makes options.

    `Annotated[MachineOptions, "runs", "threads"]` offers these fields alone; the others keep their defaults.
    """
    sets: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    offered: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind, *names = get_args(parameter.annotation) or [parameter.annotation]
        if is_dataclass(kind) and isinstance(kind, type):
            known = inspect.signature(kind).parameters
            sets[parameter.name] = kind, names or list(known)
            offered += [known[name] for name in names or known]
        else:
            offered.append(parameter)

    @functools.wraps(command)
    def call(**values: Any) -> None:
        for parameter, (kind, names) in sets.items():
            values[parameter] = kind(**{name: values.pop(name) for name in names})
        command(**values)

    offered.sort(key=lambda parameter: LAST.index(parameter.name) if parameter.name in LAST else -1)
    call.__dict__["__signature__"] = inspect.Signature(offered)
    return call
