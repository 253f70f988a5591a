"""A report is the same on every machine: no variable and no settings of matplotlib's user change a picture.

Jupyter and Colab hand MPLBACKEND=module://matplotlib_inline… on to what they start, and matplotlib 3.11 raises
ValueError as it is imported if that module is not there (https://github.com/spinalcordtoolbox/spinalcordtoolbox/issues/4523,
https://github.com/deeptools/deepTools/issues/1416). It reads a `matplotlibrc` of the working folder first of all.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Infty
from tests.report.handmade import put

SETTINGS = "font.size: 30\nsavefig.bbox: tight\naxes.facecolor: red\nlines.linewidth: 9\nxtick.bottom: False\n"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    put(tmp_path / "runs", "infty", "x8", 0.5)
    put(tmp_path / "runs", "infty", "x16", 0.4)
    return tmp_path / "runs"


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".svg", ".png")}


OTHER_WAYS = ("MATPLOTLIBRC", "home", "wrong values", "no text", "no backend")


@pytest.mark.parametrize(
    "way", ["working folder", "MPLBACKEND", *(pytest.param(way, marks=pytest.mark.slower) for way in OTHER_WAYS)]
)
def test_pictures_do_not_depend_on_the_users_matplotlib(infty: Infty, tmp_path: Path, runs: Path, way: str) -> None:
    assert infty("report", "runs", "--out", "plain").returncode == 0
    environment = {}
    match way:
        case "working folder":
            (tmp_path / "matplotlibrc").write_text(SETTINGS)
        case "MATPLOTLIBRC":
            (tmp_path / "mine").write_text(SETTINGS)
            environment["MATPLOTLIBRC"] = str(tmp_path / "mine")
        case "home":
            (tmp_path / "mpl").mkdir()
            (tmp_path / "mpl/matplotlibrc").write_text(SETTINGS)
            environment["MPLCONFIGDIR"] = str(tmp_path / "mpl")
        case "MPLBACKEND":
            environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        case "wrong values":
            (tmp_path / "matplotlibrc").write_text("font.size: large\nno.such.key: 3\naxes.facecolor\n")
        case "no text":
            (tmp_path / "matplotlibrc").write_bytes(b"font.size: 30\nfont.family: \xff\xfe\n")
        case _:
            (tmp_path / "matplotlibrc").write_text("backend: module://of.nobody\n")
    done = infty("report", "runs", "--out", "again", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert pictures(tmp_path / "again") == pictures(tmp_path / "plain")
    assert len(pictures(tmp_path / "again")) >= 2


def test_a_program_that_draws_itself_keeps_its_backend_and_settings(runs: Path, tmp_path: Path) -> None:
    """`write_report` in a notebook, say: what the program draws afterwards looks as before."""
    code = (
        "import matplotlib; matplotlib.use('svg'); matplotlib.rcParams['font.size'] = 30\n"
        "from pathlib import Path; from infty.report import write_report; from infty.config.definition import SHIPPED\n"
        f"write_report([Path({str(runs)!r})], Path({str(tmp_path / 'out')!r}), ['md'], SHIPPED)\n"
        "assert matplotlib.get_backend() == 'svg' and matplotlib.rcParams['font.size'] == 30\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(pictures(tmp_path / "out")) >= 2
