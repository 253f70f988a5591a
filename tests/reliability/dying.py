"""`python -m tests.reliability.dying EVENT:NUMBERS:SIGNAL WORD…` is `infty WORD…` that sends itself a signal as it
begins the events of these numbers: `files`, operations on files below the working directory, `removals` there, or
`import`s. At its end, if it comes there, it says how many there were."""

import os
import signal
import sys
from pathlib import Path

from infty.cli import main
from tests.reliability.operations import FILES, REMOVALS

EVENTS = {"files": FILES, "removals": REMOVALS, "import": ("import",)}
event, numbers, name = sys.argv[1].split(":")
wanted, number, here, count = EVENTS[event], signal.Signals[name], str(Path.cwd()), 0


def note(happens: str, arguments: tuple[object, ...]) -> None:
    global count
    if happens in wanted and (event == "import" or str(arguments[0]).startswith(here)):
        count += 1
        if str(count) in numbers.split(","):
            os.kill(os.getpid(), number)


sys.addaudithook(note)
sys.argv[1:] = sys.argv[2:]
try:
    main()
finally:
    print(f"events: {count}", file=sys.stderr)
