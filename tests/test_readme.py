"""What README says is so: its example runs, its links resolve, its commands and options exist."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from infty.commands.bench.measures import Measure
from infty.config.catalog import SHIPPED
from tests.conftest import Infty

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    (promised,) = re.findall(r"print\(.*?\)  # (.*)", example)
    assert capsys.readouterr().out.strip() == promised


@pytest.mark.parametrize("name", ["README.md", "experiments/RESULTS.md", "experiments/device/README.md"])
def test_every_link_leads_to_a_file_and_a_heading_that_is_there(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]+)?\)", page.read_text(encoding="utf-8"))
    assert links
    for file, anchor in links:
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), anchor


def anchors(page: Path) -> set[str]:
    """What GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what the format requires
    assert (cited["version"], cited["license"]) == (version("infty-former"), "MIT")
    (paper,) = cited["references"]
    assert paper["doi"] in README
    assert all(author["family-names"] in README for author in paper["authors"])


def test_the_row_of_ones_own_trains_and_stands_in_the_table(infty: Infty, tmp_path: Path) -> None:
    (row,) = re.findall(r"```yaml\n(  infty-broad: .*\n)```", README)
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


def test_every_command_of_the_table_exists(infty: Infty) -> None:
    for line in re.findall(r"^\| `infty ([a-z]+)[^|]*\|([^|]*)\|$", README, re.MULTILINE):
        command, does = line
        done = infty(command, "--help")
        assert done.returncode == 0
        assert set(re.findall(r"--[a-z-]+", does)) <= set(re.findall(r"--[a-z-]+", done.stdout))


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_the_speeds_are_what_the_bench_said(name: str) -> None:
    """The lines are those of the committed measurement, all of them, whether a mark is reached or not."""
    said = (ROOT / "experiments" / "results" / "bench.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in said]
    measures = [Measure(**{k: d[k] for k in ("name", "value", "parts", "bound", "mark")}) for d in documents]
    (block,) = re.findall(
        r"<!-- bench -->\n+```\n(.*?)\n```\n+<!-- /bench -->", (ROOT / name).read_text("utf-8"), re.DOTALL
    )
    assert block.splitlines() == [measure.line() for measure in measures]


def test_what_the_papers_scale_costs_is_what_dry_runs_foretold() -> None:
    lines = (ROOT / "experiments" / "results" / "forecasts.jsonl").read_text(encoding="utf-8").splitlines()
    (block,) = re.findall(r"<!-- paper -->\n+(.*?)\n+<!-- /paper -->", README, re.DOTALL)
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
