"""A run survives what ends a terminal or a job: a closed terminal, a cluster's notice, and processes that never come.

Reports: https://github.com/open-mmlab/mmsegmentation/issues/1998 (SIGHUP as an ssh connection ends),
https://github.com/meta-pytorch/torchtune/issues/228 (work lost), https://github.com/pytorch/pytorch/issues/63802
(torch 2.12 waits for the other processes without a word, and Python handles no signal meanwhile).
"""

import os
import pty
import signal
import subprocess
import sys
import termios
import textwrap
from fcntl import ioctl
from pathlib import Path

import pytest

from infty.runs.folder import RunFolder
from infty.training.checkpoint import load_last
from tests import forks
from tests.forks import ROOT, clean_environment
from tests.reliability.runs import SORT, finish, interrupted
from tests.training.together import free_port

ENDLESS = ("--set", "training.steps=100000", "--set", "training.evaluate_every=100000", "--set", "training.log_every=1")
LONG = ("train", "sort", "--scale", "smoke", "--case", "x4", "--name", "long", *ENDLESS)
PORT = free_port()
ALONE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(PORT)}
TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", **ALONE}
SRUN = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "1", **ALONE}


def saved(folder: Path) -> int:
    """The step that a run of `LONG` can go on from."""
    found = load_last(RunFolder(folder / "runs/sort/smoke/infty@x4+long/seed-0").checkpoints)
    assert found is not None
    return found.state.step


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGUSR1, 138)])
def test_a_closed_terminal_and_a_clusters_notice_leave_a_checkpoint(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    ended, told = interrupted(tmp_path, SORT.words, number, "step 6/30")
    assert ended == code
    assert "the same command continues from there" in told
    assert "Traceback" not in told
    assert SORT.run(tmp_path / "runs").state() == "stopped"
    assert "continuing at step" in finish(tmp_path, *SORT.words).stderr


def test_a_terminal_that_is_gone_when_the_next_line_is_due_costs_no_checkpoint(tmp_path: Path) -> None:
    """The system sends SIGHUP to who leads its session; each write to the terminal is an error from then on."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "infty", *LONG],
        cwd=tmp_path,
        env=clean_environment(tmp_path, PYTHONPATH=str(ROOT)),
        stdin=inner, stdout=inner, stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: (forks.heed_signals(), ioctl(0, termios.TIOCSCTTY, 0)),
    )  # fmt: skip
    os.close(inner)
    try:
        told = b""
        while b"training for" not in told:
            told += os.read(outer, 1000)
        os.close(outer)
        assert process.wait(100) == 129
    finally:
        process.kill()
        process.wait()
    assert saved(tmp_path) >= 0


def run_alone(program: str, before: str = "") -> int:
    """Run a program as infty's own work, in a process of its own: its exit code, which it gives as `stop.received`."""
    whole = f"""
import os, signal
{before}
from infty import cli
from infty.base.errors import Stopped
from infty.training.signals import StopSignals
def run():
    try:
{textwrap.indent(textwrap.dedent(program), " " * 8)}
    except Stopped as fault:
        return fault.exit_code
cli._run = run
cli.main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", whole]
    return subprocess.run(command, env=environment, preexec_fn=forks.heed_signals, check=False).returncode


def test_nohup_is_respected() -> None:
    program = """
        os.kill(os.getpid(), signal.SIGHUP)
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            return stop.received or 0
    """
    assert run_alone(program, "signal.signal(signal.SIGHUP, signal.SIG_IGN)") == 0
    assert run_alone(program) == 129


@pytest.mark.parametrize(
    ("second", "code"), [(signal.SIGUSR1, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_second_notice_is_ignored_and_a_second_of_the_others_ends_at_once(second: int, code: int) -> None:
    program = f"""
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.received == signal.SIGUSR1
            os.kill(os.getpid(), {int(second)})
        os.kill(os.getpid(), signal.SIGUSR1)  # nor does it disturb what follows
        return 0
    """
    assert run_alone(program) == code


def test_both_signals_of_a_logout_are_one_request() -> None:
    """systemd sends a session's programs SIGTERM and then SIGHUP at once (systemd.kill, SendSIGHUP)."""
    program = """
        with StopSignals() as stop:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGHUP):
                os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGHUP)  # while the checkpoint is saved
        return stop.received or 0
    """
    assert run_alone(program) == signal.SIGTERM
    assert run_alone(program.replace("(signal.SIGTERM,", "(signal.SIGTERM, signal.SIGTERM,")) == 143


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        (TORCHRUN, signal.SIGINT),
        pytest.param(TORCHRUN, signal.SIGHUP, marks=pytest.mark.slower),
        pytest.param(TORCHRUN, signal.SIGUSR1, marks=pytest.mark.slower),
        (SRUN, signal.SIGTERM),
    ],
)
def test_processes_that_never_come_are_told_and_the_first_signal_ends_the_waiting(
    tmp_path: Path, launcher: dict[str, str], number: signal.Signals
) -> None:
    ended, told = interrupted(tmp_path, LONG, number, "infty: warning: waiting", **launcher)
    size, unset = (4, "SLURM_PROCID") if launcher is SRUN else (2, "RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE")
    assert f"waiting for the other processes of {size} at 127.0.0.1 port {PORT}; to work alone, unset {unset}" in told
    assert ended == 128 + number
    assert told.endswith(f"infty: stopped by {number.name}\n")


def test_one_that_does_not_lead_says_so_too(tmp_path: Path) -> None:
    """If the one that leads never comes, nobody else could."""
    given = clean_environment(tmp_path, **{**TORCHRUN, "RANK": "1", "LOCAL_RANK": "1"})
    with forks.heard([(LONG, given)], tmp_path) as (running, stderr):
        line = next(line for line in stderr)
        os.kill(running.pids[0], signal.SIGTERM)
        stderr.read()
    assert line.startswith(
        f"infty, process 1 of 2: warning: waiting for the other processes of 2 at 127.0.0.1 port {PORT}"
    )
    assert running.wait(100)[0].returncode == 143
