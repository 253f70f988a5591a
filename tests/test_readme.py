"""What README says is so: its example runs, its links resolve, its commands and options exist."""

import json
import re
from pathlib import Path

import pytest

from infty.bench.measures import Measure
from infty.catalog import SHIPPED
from infty.report import write_report
from tests.conftest import Infty

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    (promised,) = re.findall(r"print\(.*?\)  # (.*)", example)
    assert capsys.readouterr().out.strip() == promised


def test_every_link_to_a_file_resolves() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_of_the_table_exists(infty: Infty) -> None:
    for line in re.findall(r"^\| `infty ([a-z]+)[^|]*\|([^|]*)\|$", README, re.MULTILINE):
        command, does = line
        done = infty(command, "--help")
        assert done.returncode == 0
        assert set(re.findall(r"--[a-z-]+", does)) <= set(re.findall(r"--[a-z-]+", done.stdout))


def test_the_results_are_what_the_report_makes_of_the_committed_runs(tmp_path: Path) -> None:
    """README's tables, text for text."""
    results = ROOT / "experiments" / "results" / "laptop"
    written = write_report([results], tmp_path, ["md"], SHIPPED)
    for experiment in ("sort", "wikitext", "pg19", "gpt2"):
        (block,) = re.findall(rf"<!-- {experiment} -->\n+(.*?)\n+<!-- /{experiment} -->", README, re.DOTALL)
        tables = [table for table in written.tables if table.title.startswith(f"{experiment},")]
        tables = [table for table in tables if not table.title.endswith("beside the paper")]  # no such scale here
        assert block.strip() == "\n\n".join(table.markdown().strip() for table in tables)


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
