"""The bench as it is run: contestants in their own processes, one line a measure. No timing is judged here."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infty.base.errors import InftyError
from infty.commands.bench.contestants import Spec
from infty.commands.bench.measures import Measure, Rotation, rotate
from tests.conftest import Infty

ECHO = """
import json, sys
print("ready", flush=True)
for number, _ in enumerate(sys.stdin):
    print(json.dumps({"seconds": float(sys.argv[1]) * (number + 1), "peak_bytes": number}), flush=True)
"""


def echo(seconds: float) -> list[str]:
    return [sys.executable, "-c", ECHO, str(seconds)]


def test_contestants_take_turns_and_are_paired_by_round(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "infty")
    laps = rotate({"a": echo(2), "b": echo(1)}, 3)
    turns = [f"round {i} of 3: {name}" for i, names in ((1, "ab"), (2, "ba"), (3, "ab")) for name in names]
    assert caplog.messages == ["starting a", "starting b", *turns]
    assert [lap["seconds"] for lap in laps.laps["a"]] == [2, 4, 6]
    assert laps.find_median("a") == 4
    assert laps.find_peak("b") == 2
    assert laps.compare("a", "b") == 2


def test_the_ratio_is_the_median_of_pairs_not_of_medians() -> None:
    def lap(*seconds: float) -> list[dict[str, Any]]:
        return [{"seconds": s} for s in seconds]

    assert Rotation({"a": lap(1, 20, 3), "b": lap(1, 10, 1)}).compare("a", "b") == 2


def test_a_contestant_that_dies_is_told() -> None:
    with pytest.raises(InftyError, match="b ended with exit code 5"):
        rotate({"a": echo(1), "b": [sys.executable, "-c", "raise SystemExit(5)"]}, 1)


@pytest.mark.parametrize(
    ("value", "bound", "met"), [(2.5, "at least", True), (2.4, "at least", False), (2.6, "at most", False)]
)
def test_a_mark_is_met_or_not(value: float, bound: Any, met: bool) -> None:
    measure = Measure("m", value, {}, bound, 2.5)
    assert measure.met is met
    assert measure.document()["met"] is met
    assert measure.format_line() == f"m: {value}  ({bound} 2.5: {'yes' if met else 'no'})"


def test_start_is_measured_through_the_real_command(infty: Infty) -> None:
    done = infty("bench", "start", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    (document,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert document["name"] == "start: seconds of infty --help"
    assert document["value"] > 0


@pytest.mark.slower
def test_updates_are_measured_against_a_yardstick(infty: Infty) -> None:
    yardstick = Path(__file__).parents[2] / "plain_model.py"
    done = infty("bench", "update", "--rounds", "1", "--threads", "1", "--json", "--against", str(yardstick))
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [d["name"].split(" as ")[-1] for d in documents] == ["plain", "yardstick"] * 2
    assert all(d["value"] > 0 and d["parts"]["infty_seconds"] > 0 for d in documents)
    assert done.stderr  # what is being timed


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("speed",),
            2,
            "infty: no measure 'speed'; there is step, read, update, stream, data, beside, generate, start, peers, "
            "memories\n",
        ),
        (("step", "--against", "none.py"), 3, "infty: --against none.py: there is no such file\n"),
        (("step", "--length", "4090"), 2, "infty: --set: task.length: at 4090 the separator and the 20 targets would "),
    ],
)
def test_a_mistake_is_told_before_anything_is_timed(
    infty: Infty, words: tuple[str, ...], code: int, message: str
) -> None:
    done = infty("bench", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)


def test_a_contestant_holds_nothing_that_only_others_need() -> None:
    """Its peak is compared with theirs."""
    program = "import sys, infty.commands.bench.contestants, infty.commands.bench.measures; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"transformers", "x_transformers", "infini_transformer_pytorch"} & set(loaded)


def test_a_contestant_whose_reader_went_away_ends_without_a_word() -> None:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        Spec("data", length=204, batch=1).command, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write("go\ngo\n")
    process.stdin.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == ""
    process.stderr.close()
