"""Settings of the machine: which source says them, and what is refused."""

import json
from pathlib import Path

import pytest

from infty.base.errors import UsageError
from infty.config.settings import load_settings
from tests import forks
from tests.conftest import Infty, clean_environment


def test_wandb_mode_is_read_and_its_faults_are_its_own(infty: Infty, tmp_path: Path) -> None:
    def mode(**environment: str) -> str:
        return json.loads(infty("env", "--json", **environment).stdout)["settings"]["wandb"]

    unset = {key: value for key, value in clean_environment(tmp_path).items() if key != "WANDB_MODE"}
    assert json.loads(forks.run(("env", "--json"), tmp_path, unset, 60).stdout)["settings"]["wandb"] == "offline"
    assert mode(WANDB_MODE="disabled") == "disabled"
    assert mode(WANDB_MODE="dryrun") == mode(WANDB_MODE="") == "offline"
    assert mode(WANDB_MODE="online", INFTY_WANDB="disabled") == "disabled"
    done = infty("list", WANDB_MODE="onlin")
    assert (done.returncode, done.stderr) == (2, "infty: WANDB_MODE=onlin: did you mean online?\n")


def test_settings_come_from_toml_then_environment_then_option(infty: Infty, tmp_path: Path) -> None:
    def runs(*words: str, **environment: str) -> str:
        return json.loads(infty("env", "--json", *words, **environment).stdout)["settings"]["runs"]

    assert runs() == str(tmp_path / "runs")
    (tmp_path / "infty.toml").write_text('runs = "mine"\nwandb = "disabled"\n')
    assert runs() == str(tmp_path / "mine")
    assert runs(INFTY_RUNS="/elsewhere") == "/elsewhere"
    assert runs("--runs", "/option", INFTY_RUNS="/elsewhere") == "/option"


def test_the_home_folder_is_meant_wherever_a_folder_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves `~` as it is in `--runs=~/x`, and in quotes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "infty.toml").write_text('runs = "~/a"\n')
    assert load_settings().runs == tmp_path / "home/a"
    monkeypatch.setenv("INFTY_RUNS", "~/b")
    assert load_settings().runs == tmp_path / "home/b"
    assert load_settings(runs=Path("~/c")).runs == tmp_path / "home/c"
    with pytest.raises(UsageError, match="settings: runs: no such home folder, got '~nobody-of-that-name/x' "):
        load_settings(runs=Path("~nobody-of-that-name/x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'rums = "x"\ndevice = "tpu"\n',
            "infty: settings: device: wanted auto, cpu, cuda or cuda:N, got 'tpu' "
            "(infty.toml, INFTY_DEVICE or option)\n"
            "infty.toml: rums: unknown key; did you mean runs?\n",
        ),
        ("runs = \n", "infty: infty.toml: "),
    ],
)
def test_a_wrong_infty_toml_is_refused(infty: Infty, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "infty.toml").write_text(text)
    done = infty("list")
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
