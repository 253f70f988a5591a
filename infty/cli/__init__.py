"""The command line of infty. Signal handlers come first; what takes time to load comes after."""

import io
import os
import signal
import sys
import traceback
import warnings
from types import FrameType

from infty.base.errors import InftyError, ProcessWarning, Stopped, UsageError, one_line
from infty.base.signals import begin_to_stop, handle_stops
from infty.cli.output import CALL, explain_fault
from infty.machine.launch import detect_launch


def main() -> None:
    """Run `infty`: our own errors become one message and their exit code, and no traceback reaches a user."""
    together = os.environ.keys() & {"RANK", "SLURM_STEP_NUM_TASKS"}
    if together:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DistributedDataParallel warns of what is intended
    handle_stops(_stop)  # training handles signals itself, and stops at the next step
    try:
        sys.exit(_run())
    except SystemExit as end:
        if together:  # else torch's threads that outlive their owners may abort the interpreter as it ends
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else end.code is not None)
        raise


def _stop(number: int, frame: FrameType | None) -> None:
    first = begin_to_stop(number)
    second = "" if first else ", a second signal: nothing more is saved"
    stopped = Stopped(f"stopped by {signal.Signals(number).name}{second}", number)
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame:  # libraries do not survive an exception while they are imported; what is on disk is whole
        os.write(2, f"infty: {stopped}\n".encode())
        os._exit(stopped.exit_code)
    raise stopped


def _run() -> int:
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek gets question marks, not a fault
    try:
        from infty.cli.app import app
        from infty.cli.completion import mend_shells

        mend_shells()
        app()
    except (InftyError, Stopped) as fault:
        if _leads() or not isinstance(fault, UsageError | Stopped):  # all processes meet those, so one says it
            _say(str(fault))
        return fault.exit_code
    except Exception as fault:
        if os.environ.get("INFTY_DEBUG") or CALL.verbose:
            traceback.print_exc()
        elif isinstance(fault, OSError):
            _say(explain_fault(fault))
        else:
            why = one_line(" ".join(str(fault).split()), 500)
            _say(f"{type(fault).__name__}: {why} (infty -v … shows where)")
        return 1
    return 0


def _show_warning(message: Warning | str, *_: object) -> None:
    if _leads() or isinstance(message, ProcessWarning):
        _say(f"warning: {message}")


def _leads() -> bool:
    """Tell whether this process speaks for all that were started together; also if the launcher isn't understood."""
    try:
        return detect_launch().leads
    except UsageError:
        return True


def _say(message: str) -> None:
    who = "infty" if _leads() else f"infty, process {detect_launch().rank} of {detect_launch().size}"
    print(f"{who}: {message}", file=sys.stderr)
