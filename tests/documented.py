"""The commands that pages show, and whether they are ones: nothing of them is run."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from typer import BadParameter
from typer.main import get_command

from infty.base.errors import UsageError
from infty.cli.app import app
from infty.config.definition import SHIPPED, CellKey, experiment_files, open_experiment
from infty.experiment import resolve

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TARGETS = re.compile(r"^([a-z]+):", re.MULTILINE)
FAULTS: tuple[type[BaseException], ...] = (UsageError, *BadParameter.__bases__)  # ours, and the command line's own
ADDED = {"first-seen", "infty-broad", "mean"}  # an experiment and rows that pages have the reader add first


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [body for found, body in FENCE.findall(text) if found == language]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def shown_commands(text: str) -> Iterator[list[str]]:
    """Every command of a page's shell blocks, as words, without comments and variables before it."""
    for block in blocks(text, "sh"):
        for line in block.splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
            lexer.whitespace_split = True
            command: list[str] = []
            for word in [*lexer, ";"]:
                if not set(word) <= set("&|;"):
                    command.append(word)
                    continue
                while command and re.fullmatch(r"\w+=.*", command[0]):
                    command.pop(0)
                if command:
                    yield command
                command = []


def named_commands(text: str) -> Iterator[list[str]]:
    """Every command that a page's prose or tables name in `…`, as words; some lack what they would need to run."""
    for span in re.findall(r"`((?:infty|make|python -m) [^`]+)`", prose(text)):
        yield shlex.split(span.replace("\n", " "))


def check_shown(words: list[str]) -> None:
    """AssertionError where a command of a shell block could not be given so."""
    match words:
        case ["infty", *rest]:
            check_infty(rest)
        case ["torchrun" | "srun", *rest] if "infty" in rest:
            check_infty(rest[rest.index("infty") + 1 :])
        case ["python", "-m", "infty", *rest]:
            check_infty(rest)
        case ["git", "apply", *files]:
            assert files
            assert all((ROOT / file).is_file() for file in files), words
        case ["make", *_] | ["python", "-m", *_]:
            check_named(words)
        case _:
            raise AssertionError(f"nothing checks {shlex.join(words)!r}")


def check_named(words: list[str]) -> None:
    """AssertionError where a command's name, a subcommand, an option, a target or a module does not exist."""
    match words:
        case ["infty", *rest]:
            command, options = root(), set()
            for word in rest:
                if hasattr(command, "commands") and re.fullmatch(r"[a-z]+", word):
                    assert word in command.commands, f"no command {word!r}: {words}"
                    command = command.commands[word]
                elif word.startswith("-"):
                    options.add(word.split("=")[0])
            assert options <= known_options(command) | known_options(root()), words
        case ["make", *targets]:
            known = set(TARGETS.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
            assert {target for target in targets if "=" not in target and target[0] != "-"} <= known, words
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), words


def check_infty(words: list[str]) -> None:
    """Parse what follows `infty` as the program would, and the names and settings of the cell: AssertionError."""
    try:
        _parse(words)
    except FAULTS as fault:
        raise AssertionError(f"infty {shlex.join(words)}: {fault}") from fault


def _parse(words: list[str]) -> None:
    group = root()
    context = group.make_context("infty", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    if hasattr(command, "commands"):  # infty data …
        context = command.make_context(name, rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    given = command.make_context(name, rest, parent=context).params
    for experiment in given.get("experiments") or [given.get("experiment")]:
        if experiment is not None and not {experiment, given.get("model")} & ADDED:
            _resolve(experiment, given)


def _resolve(name: str, given: dict[str, Any]) -> None:
    assert name in experiment_files(SHIPPED), name
    definition = open_experiment(name, SHIPPED)
    scale, model = given.get("scale") or "laptop", given.get("model")
    cases = definition.names("cases")
    assert scale in definition.names("scales"), (name, scale)
    if model is not None:
        cell = CellKey(name, scale, model, given.get("case") or cases[0])
        resolve(definition, cell, given.get("overrides") or [])


@cache
def root() -> Any:
    """The command `infty`, with all others below it."""
    return get_command(app)


def known_options(command: Any) -> set[str]:
    """Every spelling of every option of a command; --install-completion and --help are typer's own."""
    own = {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}
    return own | {"-h", "--help"}
