"""Completion of words in a shell. A broken file completes nothing, and no error is shown at a prompt."""

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterable

import typer

from infty.base.errors import InftyError
from infty.cli.output import read_settings
from infty.corpora.registry import KNOWN
from infty.tasks.protocols import TEXT_PROTOCOLS

# bash breaks words at each @, and replaces the last one and what follows.
BASH = """
%(complete_func)s_whole() {
    local typed="${COMP_LINE:0:COMP_POINT}"
    typed="${typed##*[[:space:]]}"
    %(complete_func)s "$1"
    [[ $2 != @* ]] || COMPREPLY=("${COMPREPLY[@]#"${typed%%"$2"}"}")
}

complete -o default -F %(complete_func)s_whole %(prog_name)s
"""
# zsh loads an installed script at the first Tab in a terminal; typer's then only defines the function that completes,
# so that nothing is completed before the second Tab.
ZSH = """
if [ "$funcstack[1]" = "_%(prog_name)s" ]; then %(complete_func)s; fi
"""


def complete(names: Callable[[typer.Context], Iterable[str]]) -> Callable[..., list[str]]:
    """Make a completion of names, which offers those that begin with what was typed."""

    def offer(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            with warnings.catch_warnings(action="ignore"):
                return [name for name in names(ctx) if name.startswith(incomplete)]
        except (InftyError, OSError):
            return []

    return offer


@complete
def complete_experiment(_: typer.Context) -> Iterable[str]:
    """List the names of the experiments."""
    from infty.config.definition import experiment_files

    return experiment_files(read_settings().experiments)


def complete_from(key: str) -> Callable[..., list[str]]:
    """Make a completion of rows ("models"), columns ("cases") or "scales" of the experiment that the line names."""

    @complete
    def names(ctx: typer.Context) -> Iterable[str]:
        from infty.config.definition import open_experiment

        # An option that still lacks its value leaves the words before it unparsed, in ctx.args.
        name = ctx.params.get("experiment") or next(iter(ctx.args), "sort")
        return open_experiment(name, read_settings().experiments).names(key)

    return names


@complete
def complete_run(ctx: typer.Context) -> Iterable[str]:
    """List the places of the runs below the folder of runs."""
    runs = read_settings(runs=ctx.params.get("runs")).runs
    return sorted(path.parent.relative_to(runs).as_posix() for path in runs.glob("*/*/*@*/seed-*/config.yaml"))


complete_protocol = complete(lambda _: TEXT_PROTOCOLS)
complete_corpus = complete(lambda _: KNOWN)


def mend_shells() -> None:
    """Make typer's scripts for shells complete at the first Tab, and names with an @."""
    if os.environ.get("_INFTY_COMPLETE") == "complete_bash":
        words = os.environ["COMP_WORDS"]
        whole = re.sub(r"(?<=\S)\n@\n?", "@", words)
        os.environ["COMP_WORDS"] = whole
        os.environ["COMP_CWORD"] = str(int(os.environ["COMP_CWORD"]) - words.count("\n") + whole.count("\n"))
    with contextlib.suppress(ImportError, AttributeError):  # not part of typer's public interface
        from typer import _completion_shared as shared

        scripts = {"bash": shared.COMPLETION_SCRIPT_BASH + BASH, "zsh": shared.COMPLETION_SCRIPT_ZSH + ZSH}
        shared._completion_scripts.update(scripts)
