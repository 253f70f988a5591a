"""Settings, progress and results, read and shown alike by all commands."""

import contextlib
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infty.base.errors import UsageError, one_line
from infty.machine.launch import detect_launch
from infty.tasks.protocols import NO_FIGURE


@dataclass
class Call:
    """The options of this call on which messages depend; folders: of runs and data, by what chooses them."""

    quiet: bool = False
    verbose: bool = False
    folders: dict[str, Path] = field(default_factory=dict)


CALL = Call()


def read_settings(**options: Any) -> Any:
    """Read this machine's settings, with what options say. UsageError with every fault."""
    from infty.config.settings import find_origins, load_settings

    loaded = load_settings(**options)
    CALL.folders = {"--runs, INFTY_RUNS": loaded.runs.absolute(), "INFTY_DATA": loaded.data.absolute()}
    if CALL.verbose:
        found = [f"{name} from {origin}" for name, origin in find_origins(**options).items()]
        open_console(stderr=True).print(f"settings: {', '.join([*found, 'the others are defaults'])}", soft_wrap=True)
    return loaded


def warn_of_no_folder(runs: Path | None) -> None:
    """Warn that a folder that was given with --runs is not there: what holds for an empty one is no answer then."""
    if runs is not None and not runs.expanduser().is_dir():
        warnings.warn(f"no folder {one_line(str(runs))}: --runs names one that holds runs", stacklevel=2)


def explain_fault(fault: OSError) -> str:
    """Say which file failed, why, and what chooses another folder if the file lies in one of the settings."""
    why = fault.strerror or one_line(str(fault), 500)
    try:
        file = os.fsdecode(fault.filename2 or fault.filename)  # of a move, where it was to lead
    except TypeError:  # there is none, or a number
        return why
    inside = [name for name, folder in CALL.folders.items() if Path(file).absolute().is_relative_to(folder)]
    hint = f" (another folder: {inside[0]} or infty.toml)" if inside else ""
    name = re.sub(r"(^|/)\.([^/]+)\.\d+\.tmp$", r"\1\2", file)  # the name that a temporary file is to take
    return f"{one_line(name, 500)}: {why}{hint}"


def open_console(stderr: bool = False) -> Any:
    """Open a console for texts and bars. `--quiet` silences stderr; results go to stdout, and are never silenced."""
    from rich.console import Console

    class Lasting(Console):
        """A console that goes on in silence when its reader goes away: `| head` must not end a training."""

        def on_broken_pipe(self) -> None:
            self.quiet = True

    silent = not detect_launch().leads or (stderr and CALL.quiet)
    return Lasting(stderr=stderr, markup=False, highlight=False, quiet=silent)


@contextlib.contextmanager
def show_progress(console: Any) -> Iterator[None]:
    """Show on a console what infty logs, and its bars, within the block; warnings are shown by `warnings`."""
    from infty.base.progress import screen, show_on

    class ScreenHandler(logging.Handler):
        """A handler that prints messages above the bars that are drawn; the terminal breaks long lines."""

        def emit(self, record: logging.LogRecord) -> None:
            screen().print(self.format(record), soft_wrap=True)

    logger, handler = logging.getLogger("infty"), ScreenHandler()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a library may have given the root logger a handler, which would say it again
    try:
        with show_on(console):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def show_values(values: dict[str, Any], as_json: bool, document: Any = None) -> None:
    """Print a line for each value, or the whole document as JSON."""
    if as_json:
        print_json(values if document is None else document)
        return
    for key, value in values.items():
        if isinstance(value, dict):
            print(f"{key}:", *(f"  {inner}: {detail}" for inner, detail in value.items()), sep="\n")
        else:
            print(f"{key}: {value}")


def show_outcome(record: Any, as_json: bool) -> None:
    """Show the result of a training run or an evaluation; nothing if another process has it."""
    if record:
        show_values(summarize(record.model_dump()), as_json, document=record.model_dump())


def show_tables(make_tables: Callable[[], Iterable[Any]], document: Any, as_json: bool) -> None:
    """Print the document as JSON, or the tables that are made of it."""
    if as_json:
        print_json(document)
        return
    screen = open_console()
    for table in make_tables():
        if screen.is_terminal:
            screen.print(table.to_rich(screen.width))
            for note in table.notes:
                screen.print(note, soft_wrap=": infty " in note)  # a command stays one line, which can be pasted
            screen.print()
        else:  # whole lines, which other programs can read
            print("\n".join([table.title, "", table.to_markdown(), *table.notes, ""]))


def print_json(document: Any) -> None:
    """Print one document to stdout."""
    print(json.dumps(document, indent=2, allow_nan=False))


def refuse_given(options: Mapping[str, Any], beside: str) -> None:
    """Raise UsageError if one of the options has a value: they have no meaning with `beside`."""
    if given := next((name for name, value in options.items() if value is not None), None):
        raise UsageError(f"{given} has no meaning with {beside}")


def summarize(outcome: dict[str, Any]) -> dict[str, Any]:
    """Choose the figures of a training run or an evaluation that a person wants to see first."""
    wanted = ("best_step", "step", "wall_seconds", "parameters", "memory_slots", "state_bytes")
    oracle: dict[str, float] = {}
    if known := outcome["calibration"]:  # of the sorting task: what accuracy means there
        oracle = {"chance": known["chance"], f"oracle of the last {known['oracle_window']} symbols": known["oracle"]}
    return {
        **_round({**outcome["metrics"], **oracle}),
        "protocol": outcome["protocol"]["name"],
        **{key: outcome[key] for key in wanted if key in outcome},
    }


def summarize_stream(outcome: dict[str, Any]) -> dict[str, Any]:
    """Choose the figures of the reading of one long text that a person wants to see first."""
    pace = outcome["pace"]
    answers = {"answer": outcome["answer"], "model": outcome["model_answer"]} if outcome["answer"] else {}
    summary = {
        **_round(outcome["metrics"]),
        **{name: " ".join(map(str, symbols)) for name, symbols in answers.items()},
        **{key: pace[key] for key in ("tokens", "segments", "tokens_per_second")},
        "seconds": round(pace["seconds"], 2),
    }
    if "late_to_early" in pace:
        summary["time of a late segment"] = f"{pace['late_to_early']:.3f} × that of the 10th to 20th"
        summary["memory since the 20th segment"] = f"+ {pace['growth_bytes'] / 1e6:.1f} MB"
    return summary


def _round(figures: Mapping[str, float | None]) -> dict[str, Any]:
    """Round figures for a person; a dash, with a note, for those that can't be made."""
    rounded = {name: "–" if value is None else round(value, 4) for name, value in figures.items()}
    return {**rounded, "note": NO_FIGURE} if None in figures.values() else rounded
