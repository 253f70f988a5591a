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


def test_an_unknown_variable_is_told_once_with_the_nearest_name(infty: Infty, tmp_path: Path) -> None:
    done = infty("list", "--json", INFTY_RUN="/x", INFTY_DEBUG="", INFTY_SLOT="0", INFTY_EMPTY="")
    said = "infty: warning: INFTY_RUN is no variable of infty; did you mean INFTY_RUNS?\n"
    assert (done.returncode, done.stderr) == (0, said)
    assert infty("list", infty_Device="cpu").stderr == ""  # pydantic reads names of any case
    done = infty("reproduce", "sort", "--scale", "smoke", "--dry-run", INFTY_XYZW="1", INFTY_MICROBATCH="2")
    told = [line for line in done.stderr.splitlines() if "warning" in line]
    assert told[0] == "infty: warning: INFTY_MICROBATCH is no variable of infty; did you mean INFTY_MICRO_BATCH?"
    assert told[1].startswith("infty: warning: INFTY_XYZW is no variable of infty; there is INFTY_RUNS, INFTY_DATA, ")
    assert len(told) == 2
    asked = {"_INFTY_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "infty train sor"}
    done = infty(**asked, INFTY_RUN="/x")
    assert "sort" in done.stdout
    assert done.stderr == ""  # nothing is said at a prompt


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("THREADS", "abc", "wanted an integer"),
        ("THREADS", "1.5", "wanted an integer"),
        ("MICRO_BATCH", "0", "must be greater than 0"),
        ("RECOMPUTE", "perhaps", "wanted true or false"),
        ("PRECISION", "half", "must be 'float32', 'tf32' or 'bf16'"),
    ],
)
def test_a_wrong_variable_is_refused_in_a_users_words(infty: Infty, variable: str, value: str, wanted: str) -> None:
    done = infty("list", **{f"INFTY_{variable}": value})
    key = variable.lower()
    said = f"infty: settings: {key}: {wanted}, got '{value}' (infty.toml, INFTY_{variable} or option)\n"
    assert (done.returncode, done.stderr) == (2, said)


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
