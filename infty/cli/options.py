"""Options and names that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from infty.cli.completion import complete_experiment, complete_from

Name = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Name or YAML file.", autocompletion=complete_experiment)
]
Model = Annotated[str, typer.Option(help="Row of the table.", autocompletion=complete_from("models"))]
Case = Annotated[str | None, typer.Option(help="Column; by default the first.", autocompletion=complete_from("cases"))]
Scale = Annotated[str, typer.Option(help="laptop, paper or smoke.", autocompletion=complete_from("scales"))]
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
    Literal["float32", "tf32", "bf16"] | None,
    typer.Option(help="Of products; tf32 is a GPU's. The memory's are in float32."),
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
