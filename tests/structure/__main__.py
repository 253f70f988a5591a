"""Print what a rebuilding of infty is measured by: `python -m tests.structure [--tree DIR] [--list] [--json]`.

It measures and never fails. `--list` adds the places in the code that were counted.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tests.structure.figures import Figure, measure_files, measure_way

SIGNS = {True: "✓", False: "✗", None: ""}


def main() -> None:
    """Measure a tree and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.structure", description="Measure the structure of infty.")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[2], help="a checkout; by default this one")
    parser.add_argument("--list", action="store_true", help="print the places in the code that were counted")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    tree = options.tree.resolve()
    figures = [*measure_files(tree), *measure_way(tree)]
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures], ensure_ascii=False))
        return
    print_table(figures)
    for figure in figures if options.list else ():
        if figure.places:
            print(f"\n{figure.name}:", *figure.places, sep="\n  ")


def print_table(figures: list[Figure]) -> None:
    """Print a line per figure, its mark beside it."""
    rows = [("figure", "measured", "mark", ""), *((f.name, f.text, f.mark, SIGNS[f.reached]) for f in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
