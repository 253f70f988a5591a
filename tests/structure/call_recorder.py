"""Run a command of infty and record the calls between its functions, from `train` to the first optimiser step.

Run by path in a process of its own, in the tree's root, which PYTHONPATH must name too:

    python -P call_recorder.py OUT COMMAND...

It writes OUT, a JSON list of calls in the order in which they were made, and ends the process. A call is
`[caller, path, name, line, direct, generator]`: the index of the call that it was made from, the file below infty/, the
function's qualified name and first line, if it was called by that caller itself and not through a library, and if it is
a generator. The first call is the command's function in infty/cli, the last that of the first function of
infty/training/step.py which infty/training/loop.py calls. What modules do while they are imported is left out.
"""

import inspect
import json
import os
import sys
from pathlib import Path
from types import FrameType

ROOT = f"{Path.cwd().resolve()}{os.sep}infty{os.sep}"
Call = tuple[int | None, str, str, int, bool, bool]


class Recorder:
    """A profile function that notes the calls of infty's own functions until the first optimiser step."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.calls: list[Call] = []
        self.stack: list[tuple[FrameType, int | None]] = []  # open frames of infty; no index: it isn't recorded
        self.generators: dict[FrameType, int | None] = {}  # kept, for they are entered again and again

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Note that a frame was entered or left."""
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            self.stack.append((frame, self._index(frame)))
        elif event == "return" and self.stack and self.stack[-1][0] is frame:
            self.stack.pop()

    def _index(self, frame: FrameType) -> int | None:
        """Record a call and return its index; None if it is not part of the way to the first step."""
        if frame in self.generators:
            return self.generators[frame]
        code = frame.f_code
        path = code.co_filename.removeprefix(ROOT).replace(os.sep, "/")
        caller_frame, caller = self.stack[-1] if self.stack else (None, None)
        # Until the command's function is called, and in bodies of modules and classes, nothing is recorded.
        begins = not self.calls and path.startswith("cli") and code.co_name == "train"
        if not code.co_flags & inspect.CO_OPTIMIZED or (caller is None and not begins):
            return None
        index, is_generator = len(self.calls), bool(code.co_flags & inspect.CO_GENERATOR)
        direct = frame.f_back is caller_frame
        self.calls.append((caller, path, code.co_qualname, code.co_firstlineno, direct, is_generator))
        if is_generator:
            self.generators[frame] = index
        if caller is not None and self._is_first_step(self.calls[caller][1], path, code.co_name):
            self._end()
        return index

    @staticmethod
    def _is_first_step(caller: str, path: str, name: str) -> bool:
        """Tell if a call is that of the optimiser step by the training loop."""
        return path == "training/step.py" and caller == "training/loop.py" and not name.startswith("__")

    def _end(self) -> None:
        """Write what was recorded and end the process, before the step is taken."""
        sys.setprofile(None)
        self.out.write_text(json.dumps(self.calls), encoding="utf-8")
        os._exit(0)


if __name__ == "__main__":
    recorder = Recorder(Path(sys.argv[1]))
    sys.argv = ["infty", *sys.argv[2:]]
    from infty.cli import main

    sys.setprofile(recorder)
    main()
