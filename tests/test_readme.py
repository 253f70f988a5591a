"""What the pages say is so: examples run, links resolve, commands and options exist, figures are those measured."""

import inspect
import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from infty import LongTermMemory
from infty.commands.bench.measures import Measure
from infty.config.definition import SHIPPED
from tests import test_house
from tests.conftest import Infty
from tests.documented import (
    blocks,
    check_named,
    check_shown,
    known_options,
    named_commands,
    prose,
    root,
    shown_commands,
)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *SHIPPED.glob("device/README.md")]
)
WITH_PYTHON = ["README.md", "docs/memory.md"]
PAGES = [*GUIDES, ROOT / "CHANGELOG.md", ROOT / "data/README.md", SHIPPED / "LOG.md", SHIPPED / "RESULTS.md"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_readme_stays_short() -> None:
    assert len(README.encode()) <= 13_000


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_example_runs_and_prints_what_it_says(
    page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(read(page), "python")
    exec(compile(example, page, "exec"), {})
    (promised,) = re.findall(r"print\(.*?\)  # (.*)", example)
    assert capsys.readouterr().out.strip() == promised


def test_no_other_page_has_python_that_no_test_runs() -> None:
    assert [named(page) for page in PAGES if blocks(page.read_text(encoding="utf-8"), "python")] == WITH_PYTHON


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_a_heading_that_is_there(page: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]+)?\)", prose(page.read_text(encoding="utf-8"))):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), anchor


def anchors(page: Path) -> set[str]:
    """What GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_leads_to_every_page_of_docs() -> None:
    assert {f"docs/{page.name}" for page in (ROOT / "docs").iterdir()} <= set(re.findall(r"\]\(([^)#]+)\)", README))


def test_the_sources_have_all_pages() -> None:
    built = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {named(page).split("/")[0] for page in PAGES} - {"data"} <= set(built)


# The commands of experiments/device/README.md are taken by tests/test_device_script.py.
@pytest.mark.parametrize("page", [page for page in GUIDES if page.parent.name != "device"], ids=named)
def test_every_command_of_a_shell_block_could_be_given(page: Path) -> None:
    for words in shown_commands(page.read_text(encoding="utf-8")):
        check_shown(words)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_that_is_named_has_its_options(page: Path) -> None:
    for words in named_commands(page.read_text(encoding="utf-8")):
        check_named(words)


@pytest.mark.parametrize(
    "line",
    [
        "infty trian sort",
        "infty train sort --modell infty",
        "infty train sort --model inty",
        "infty train sort --set training.stps=5",
        "infty train sort --scale paper && infty data fech wikitext",
        "torchrun -m infty eval sort --seed one",
        "git apply experiments/examples/none.patch",
        "make no-such-target",
        "python -m tests.nothing",
        "infy report",
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    *before, last = shown_commands(f"```sh\n{line}\n```\n")
    for words in before:
        check_shown(words)
    with pytest.raises(AssertionError):
        check_shown(last)


def test_options_are_found_in_tables_and_across_lines() -> None:
    text = "| `infty eval sort` |\n`make\nquick` and `infty report\n--no-such`"
    found = list(named_commands(text))
    assert found == [["infty", "eval", "sort"], ["infty", "report", "--no-such"]]
    with pytest.raises(AssertionError):
        check_named(found[1])


def test_the_tables_of_commands_name_options_that_exist() -> None:
    every = set()
    for page in ("README.md", "docs/cli.md"):
        for command, does in re.findall(r"^\| `infty ([a-z]+)[^|]*\|([^|]*)\|$", read(page), re.MULTILINE):
            assert set(re.findall(r"--[a-z-]+", does)) <= known_options(root().commands[command])
            every.add(command)
    assert every == root().commands.keys()


def test_the_options_for_what_does_not_fit_are_those_of_train() -> None:
    options = set(re.findall(r"^\| `(--[a-z-]+)", read("docs/scale.md"), re.MULTILINE))
    assert options
    assert options <= known_options(root().commands["train"])


def test_the_calls_of_the_memory_exist_and_take_what_the_table_gives_them() -> None:
    calls = re.findall(r"^\| `memory\.(\w+)\(([^)]*)\)`", read("docs/memory.md"), re.MULTILINE)
    assert {name for name, _ in calls} >= {"initial_state", "update", "attend", "observe", "kl"}
    for name, given in calls:
        parameters = list(inspect.signature(getattr(LongTermMemory, name)).parameters)[1:]
        assert parameters[: len(given.split(", "))] == given.split(", "), name


def test_contributing_names_every_package_and_no_other() -> None:
    listed = re.findall(r"^\| `infty/([a-z_.]+)` \|", read("CONTRIBUTING.md"), re.MULTILINE)
    assert {name.removesuffix(".py") for name in listed} == set(test_house.MAY_IMPORT) - {"__init__", "__main__"}


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what the format requires
    assert (cited["version"], cited["license"]) == (version("infty-former"), "MIT")
    (paper,) = cited["references"]
    assert paper["doi"] in README
    assert all(author["family-names"] in README for author in paper["authors"])


def test_the_row_of_ones_own_trains_and_stands_in_the_table(infty: Infty, tmp_path: Path) -> None:
    (row,) = re.findall(r"```yaml\n(  infty-broad: .*\n)```", read("docs/extending.md"))
    experiment = (SHIPPED / "sort-ablation.yaml").read_text(encoding="utf-8")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/sort-ablation.yaml").write_text(
        experiment.replace("  infty: {}\n", f"  infty: {{}}\n{row}"), encoding="utf-8"
    )
    for model in ("infty", "infty-broad"):
        done = infty("train", "sort-ablation", "--model", model, "--scale", "smoke")
        assert done.returncode == 0, done.stderr
    runs = [f"sort-ablation/smoke/{model}@x16/seed-0" for model in ("infty", "infty-broad")]
    compared = json.loads(infty("compare", *runs, "--json").stdout)
    assert compared["settings"] == {"model.long_range.widths": [[0.01, 0.05], [0.05, 0.2]]}
    assert "| infty-broad | infty |" in infty("report").stdout


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("docs/speed.md", "bench"),
        ("CHANGELOG.md", "bench"),
        ("docs/speed.md", "bench-peers"),
        ("docs/speed.md", "bench-memories"),
    ],
)
def test_the_speeds_are_what_the_bench_said(name: str, measured: str) -> None:
    """The lines are those of the committed measurement, all of them, whether a mark is reached or not."""
    said = (ROOT / "experiments" / "results" / f"{measured}.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in said]
    measures = [Measure(**{k: d[k] for k in ("name", "value", "parts", "bound", "mark")}) for d in documents]
    (block,) = re.findall(rf"<!-- {measured} -->\n+```\n(.*?)\n```\n+<!-- /{measured} -->", read(name), re.DOTALL)
    assert block.splitlines() == [measure.format_line() for measure in measures]


def test_what_the_papers_scale_costs_is_what_dry_runs_foretold() -> None:
    lines = (ROOT / "experiments" / "results" / "forecasts.jsonl").read_text(encoding="utf-8").splitlines()
    (block,) = re.findall(r"<!-- paper -->\n+(.*?)\n+<!-- /paper -->", read("docs/scale.md"), re.DOTALL)
    assert block == forecast_table([json.loads(line) for line in lines])


def forecast_table(documents: list[dict[str, Any]]) -> str:
    """Of what `infty train … --scale paper --dry-run --json` says, a line a cell."""
    rows = []
    for found in documents:
        _, _, name, *options = found["command"].split()
        case = options[options.index("--case") + 1]
        held = found["predicted_megabytes"]
        fixed = sum(held[part] for part in ("weights", "gradients", "optimizer")) / 1024
        cards = " / ".join(str(rows or "–") for rows in held["largest_micro_batch"].values())
        cells = (
            name if case == "main" else f"{name} {case}",
            f"{found['parameters'] / 1e6:,.1f} M",
            f"{found['steps']:,} × {found['sequences_a_device']}",
            f"{found['training_flops']:.1e}",
            f"{fixed:.1f}",
            cards,
            f"{found['disk_megabytes'] / 1e3:,.1f}",
            f"{found['predicted_training_seconds'] / 3600:,.0f}",
            f"{found['training_flops'] / 1e13 / 3600:,.1f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    names = (
        "infty", "parameters", "steps × sequences", "FLOPs", "GB: weights, gradients, Adam",
        "sequences at once in 16 / 24 / 40 / 80 GB", "GB of disk", "hours on these 2 CPU cores", "hours at 10 TFLOP/s",
    )  # fmt: skip
    return "\n".join([f"| {' | '.join(names)} |", f"| --- {'| ---: ' * (len(names) - 1)}|", *rows])
