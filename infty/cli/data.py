"""`infty data`: corpora on this machine."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from infty.cli.completion import complete_corpus
from infty.cli.options import Group, Json
from infty.cli.output import print_json, read_settings, show_tables

HELP = "Corpora: what is here, download, import, check."
data_app = typer.Typer(name="data", cls=Group, help=HELP, no_args_is_help=True)

Corpus = Annotated[str, Argument(metavar="NAME", help="Name of a corpus.", autocompletion=complete_corpus)]
Replace = Annotated[bool, Option("--replace", help="Put it in the place of another one of that name.")]
DataFolder = Annotated[Path | None, Option("--folder", help="Folder of corpora; by default the settings' own.")]


@data_app.command("list", epilog="Example: infty data list --json")
def list_corpora(as_json: Json = False, folder: DataFolder = None) -> None:
    """List the corpora: what is here, sizes, sums, licence."""
    from infty.corpora.inventory import inventory, inventory_table

    entries = inventory(read_settings(data=folder).data)
    show_tables(lambda: [inventory_table(entries)], [vars(entry) for entry in entries], as_json)


@data_app.command("fetch", epilog="Example: infty data fetch wikitext --split validation --split test")
def fetch_corpus(
    name: Corpus,
    splits: Annotated[list[str] | None, Option("--split", help="Only this split; repeatable.")] = None,
    replace: Replace = False,
    as_json: Json = False,
    folder: DataFolder = None,
) -> None:
    """Download a corpus from the public hub, at a pinned commit, and import it. A broken download goes on."""
    from infty.commands.train.requirements import fetch_known_corpus

    parts = dict.fromkeys(splits or [])
    _show_corpus(fetch_known_corpus(name, parts, read_settings(data=folder).data, replace=replace), as_json)


@data_app.command("import", epilog="Example: infty data import wikitext ~/wikitext-103")
def import_folder(
    name: Corpus,
    source: Annotated[Path, Argument(metavar="FOLDER", help="Folder or archive that holds it.")],
    replace: Replace = False,
    as_json: Json = False,
    folder: DataFolder = None,
) -> None:
    """Import a corpus from a folder or an archive of your own."""
    from infty.corpora.imports import import_corpus

    _show_corpus(import_corpus(read_settings(data=folder).data, name, source, replace=replace), as_json)


@data_app.command("verify", epilog="Example: infty data verify wikitext")
def verify_corpora(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[NAME]...", help="By default all that are here.", autocompletion=complete_corpus),
    ] = None,
    as_json: Json = False,
    folder: DataFolder = None,
) -> None:
    """Check the sums of every file of corpora and their token files."""
    from infty.corpora.inventory import verify

    found = verify(read_settings(data=folder).data, names or [])
    if as_json:
        print_json(vars(found))
    elif not found.faults:
        print(f"{len(found.whole)} files are what they were")
    found.refuse_faults()


def _show_corpus(corpus: Any, as_json: bool) -> None:
    from infty.corpora.inventory import describe_corpus, inventory_table

    entry = describe_corpus(corpus)
    show_tables(lambda: [inventory_table([entry])], vars(entry), as_json)
