"""Show that a change of the code changed no number: sums of all that it computes, of two checkouts, compared.

    python -m tests.proof --tree OTHER --out before.json
    python -m tests.proof --out after.json
    python -m tests.proof --compare before.json after.json

Every row of every experiment is trained at smoke scale by one process, by two, and by one that splits its batches; then
evaluated, knocked out, generated from and reported, all through the command line of the checkout. What `sums.py` leaves
out is no number of the method. One thread a process, so that sums are those of the same bytes; two machines or two
versions of torch may differ in the last bit, so compare what one machine made.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.proof.work import PROMPT, QUICK, Proof, every_cell

ROOT = Path(__file__).parents[2]


def main() -> int:
    """What was asked for; 1 where a comparison finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few cells, in two minutes instead of twenty")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose code is run; by default this one")
    parser.add_argument("--jobs", type=int, default=2, help="commands at once")
    parser.add_argument("--out", type=Path, help="where the sums go")
    parser.add_argument("--compare", type=Path, nargs=2, metavar="FILE", help="two files of sums")
    asked = parser.parse_args()
    if asked.compare:
        return compare(*asked.compare)
    if asked.out is None:
        parser.error("wanted --out FILE, or --compare FILE FILE")
    record(asked.tree.resolve(), asked.out, asked.jobs, quick=asked.quick)
    return 0


def record(tree: Path, out: Path, jobs: int, *, quick: bool) -> None:
    """Run everything in a folder of its own and write the sums."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="proof-") as place:
        folder = Path(place).resolve()
        (folder / "stream.txt").write_text(f"{PROMPT} people talked about the harvest .\n" * 20, encoding="utf-8")
        sums = Proof(tree, folder, jobs).run(QUICK if quick else every_cell(tree))
    git = subprocess.run(["git", "-C", str(tree), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    minutes = (time.monotonic() - began) / 60
    sums["note"] = {"commit": git.stdout.strip(), "minutes": round(minutes, 1), "jobs": jobs}  # not compared
    out.write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
    print(f"{len(dict(flatten(sums)))} sums of {sums['about']['cells']} cells in {minutes:.1f} minutes: {out}")


def compare(first: Path, second: Path) -> int:
    """Print each sum that differs, and how many there are; 1 where one does."""
    one, other = (dict(flatten(json.loads(path.read_text(encoding="utf-8")))) for path in (first, second))
    differing = 0
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            differing += 1
            where = f", only in {first if key in one else second}" if (key in one) != (key in other) else ""
            print(f"differs: {key}{where}")
    failed = sum(str(value).startswith("exit code") for value in one.values())
    print(f"{len(one.keys() | other.keys())} sums compared, {differing} differ; {failed} commands failed in {first}")
    return int(differing > 0)


def flatten(sums: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Each sum with the keys that lead to it, without the note."""
    for key, value in sums.items():
        if isinstance(value, dict):
            if above or key != "note":
                yield from flatten(value, f"{above}{key} ")
        else:
            yield f"{above}{key}", value


if __name__ == "__main__":
    sys.exit(main())
