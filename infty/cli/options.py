"""Options that several commands share, and what a shell completes them with."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infty.cli.output import settings


def complete_experiment(incomplete: str) -> list[str]:
    """Names of the experiments."""
    from infty.catalog import experiment_files

    return [name for name in experiment_files(settings().experiments) if name.startswith(incomplete)]


def _complete_from(key: str) -> Any:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from infty.catalog import open_experiment

        # An option that still lacks its value leaves the words before it unparsed, in ctx.args.
        name = ctx.params.get("experiment") or next(iter(ctx.args), "sort")
        names = open_experiment(name, settings().experiments).names(key)
        return [found for found in names if found.startswith(incomplete)]

    return complete


def complete_protocol(incomplete: str) -> list[str]:
    """Names of the protocols of texts."""
    from infty.protocols import TEXT_PROTOCOLS

    return [name for name in TEXT_PROTOCOLS if name.startswith(incomplete)]


Name = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Name or YAML file.", autocompletion=complete_experiment)
]
Model = Annotated[str, typer.Option(help="Row of the table.", autocompletion=_complete_from("models"))]
Case = Annotated[str | None, typer.Option(help="Column; by default the first.", autocompletion=_complete_from("cases"))]
Scale = Annotated[str, typer.Option(help="laptop, paper or smoke.", autocompletion=_complete_from("scales"))]
Seed = Annotated[
    int, typer.Option(min=0, max=2**31 - 1, help="Decides initial weights, order of the data and dropout.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a setting; repeatable.")
]
RunName = Annotated[str | None, typer.Option("--name", help="Name of a run with other settings.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")]
Runs = Annotated[Path | None, typer.Option(help="Folder of the run folders.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    str | None, typer.Option(help="Of products: float32, tf32 (GPUs) or bf16; the memory's are in float32.")
]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Most training sequences at once on a device; changes dropout's draws only.")
]
Recompute = Annotated[
    bool | None, typer.Option("--recompute", help="Keep no activations within layers: less memory, more time.")
]
Compile = Annotated[bool | None, typer.Option("--compile", help="Let torch.compile fuse what it can.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="Your own text files, split by documents.")]
