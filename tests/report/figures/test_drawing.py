"""Pictures of memories from hand-written numbers: parsed, not only made; and numbers that are none are refused."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps, image

from infty.base.errors import MissingError
from infty.report.figures.drawing import draw_memory
from infty.runs.schemas import MemoryTrace
from tests.report.handmade import memory

TEXTS = ["$x^2$ and $ \\alpha", "漢字の文章", "naïve café 😀", "مرحبا بالعالم", "a" * 100, "", "<unk> & <b>"]


def draw(values: dict[str, Any], title: str, stem: Path) -> list[Path]:
    return draw_memory(MemoryTrace.check(values, "memory"), title, stem)


def texts_of(svg: Path) -> set[str]:
    root = ElementTree.parse(svg).getroot()
    return {"".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")}


def test_a_text_s_picture_says_what_it_shows_and_is_the_same_bytes_twice(tmp_path: Path) -> None:
    svg, png = draw(memory(texts=TEXTS), "wikitext, $laptop$ scale", tmp_path / "v1.0-memory")
    again = draw(memory(texts=TEXTS), "wikitext, $laptop$ scale", tmp_path / "again")
    assert (svg.name, png.name) == ("v1.0-memory.svg", "v1.0-memory.png")
    assert [path.read_bytes() for path in again] == [svg.read_bytes(), png.read_bytes()]
    found = texts_of(svg)
    assert {"wikitext, $laptop$ scale: document 3, 3,072 tokens in 24 segments", "layer, 3 heads each"} <= found
    assert {"layer 1", "layer 2", "1", "2", "4", "attention", "room", "share of all (%)"} <= found
    assert {f"{text}  {8 * i}" for i, text in enumerate(TEXTS) if len(text) < 40} - found == set()
    assert f"{'a' * 43}…  32" in found
    assert "share explained (−0.5: or less)" in found
    pixels = image.imread(png)
    assert pixels.shape[0] > 1400  # below those of a sequence stand the phrases
    assert pixels.std() > 0.05


@pytest.mark.parametrize(
    ("layers", "heads", "updates"), [(1, 1, (1,)), (3, 4, (1, 2, 4, 8)), (16, 10, (1, 2, 4, 8)), (5, 2, (1, 2))]
)
def test_a_sequence_s_picture_has_no_phrases_whatever_its_sizes(
    tmp_path: Path, layers: int, heads: int, updates: tuple[int, ...]
) -> None:
    svg, png = draw(memory(layers, heads, updates), "sort", tmp_path / "x")
    found = texts_of(svg)
    assert "sort: sequence 3, 3,072 tokens in 24 segments" in found
    assert not {"room", "share of all (%)"} & found
    assert {"layer 1", f"layer {layers}", *map(str, updates)} <= found
    assert ("layer 2" in found) == (1 < layers <= 5)
    assert image.imread(png).std() > 0.05


def test_densities_stand_where_they_are(tmp_path: Path) -> None:
    """Of two heads the first looks at the oldest eighth alone, the other at the newest: light there, dark elsewhere."""
    values = memory(layers=1, heads=2)
    values["density"] = [[[0.125] * 8 + [0.0] * 56, [0.0] * 56 + [0.125] * 8]]
    (_, png) = draw(values, "x", tmp_path / "x")
    pixels = image.imread(png)[..., :3]
    dark, light = (np.abs(pixels - colormaps["cividis"](end)[:3]).max(-1) < 0.01 for end in (0.0, 1.0))
    columns = np.flatnonzero(dark.sum(0) > 0.3 * len(pixels))
    left, stop = columns[0], columns[-1] + 1
    rows = np.flatnonzero(dark[:, left:stop].sum(1) > 0.5 * (stop - left))
    found = light[rows[0] : rows[-1] + 1, left:stop]
    expected = np.zeros_like(found)
    expected[: len(found) // 2, : (stop - left) // 8] = expected[len(found) // 2 :, 7 * (stop - left) // 8 :] = True
    assert found.shape[1] > 300
    assert (found != expected).mean() < 0.01


def test_pictures_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(memory(texts=TEXTS)))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from infty.runs.schemas import MemoryTrace\n"
        "from infty.report.figures.drawing import draw_memory; here = Path(sys.argv[1])\n"
        "draw_memory(MemoryTrace.read(here / 'm.json'), 'x', here / 'x')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / "x.png").exists()


def changed(path: tuple[Any, ...], value: Any) -> Any:
    """Numbers of a memory with one of them replaced, or removed where the value is None."""
    values = inner = memory(texts=TEXTS)
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(((key,), None) for key in memory() if key != "schema"),
        (("density", 0, 1, 5), float("nan")),
        (("density", 0, 1, 5), float("inf")),
        (("density", 0, 1, 5), "0.1"),
        (("density", 0, 1, 5), 1.5),
        (("density", 0, 1, 5), -0.1),
        (("density", 0, 1), [0.5] * 63),
        (("density", 0, 1), []),
        (("density", 0), [[0.5] * 64] * 2),
        (("density", 1), None),
        (("density",), []),
        (("histogram", 1), [0.5] * 127),
        (("histogram", 1), None),
        (("histogram",), {}),
        (("reconstruction",), []),
        (("reconstruction", 1, "updates"), 3),
        (("reconstruction", 1, "updates"), 10**9),
        (("reconstruction", 1, "layers", 0), [0.5]),
        (("reconstruction", 1, "layers", 0, 0), 1.01),
        (("reconstruction", 1, "layers", 0, 0), float("-inf")),
        (("reconstruction", 1, "layers"), [[0.5, 0.5]]),
        (("regression_error", 0), None),
        (("regression_error", 0), True),
        (("regression_error_mean",), -1),
        (("reach", "share"), [0.5]),
        (("reach", "gate", 0), float("nan")),
        (("reach", "rest"), -1),
        (("reach",), []),
        (("gaze", 1), None),
        (("gaze", 0, "center"), 1.5),
        (("gaze", 0, "width"), -0.1),
        (("gaze", 0, "there"), float("nan")),
        (("gaze",), []),
        (("stream", "kind"), "book"),
        (("stream", "segments"), 0),
        (("stream", "tokens"), 2.5),
        (("protocol",), "../x"),
        (("room", 0, "text"), "two\nlines"),
        (("room", 0, "text"), "\x1b[31m"),
        (("room", 0, "text"), "\u2028"),
        (("room", 0, "text"), "\ud800"),
        (("room", 0, "text"), "a" * 5000),
        (("room", 0, "text"), 3),
        (("room", 0, "room"), 2),
        (("room", 0, "attention"), float("nan")),
        (("room", 0, "token"), -8),
        (("room",), "phrases"),
        (("room",), [{}] * 101),
    ],
)
def test_what_is_no_memory_is_refused_in_one_line(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(MissingError) as caught:
        MemoryTrace.check(changed(path, value), "memory.json")
    line = str(caught.value)
    assert line.startswith("memory.json: ")
    assert line.isprintable()
    assert len(line) < 400


def test_floats_are_kept_with_six_digits_and_no_other_is_lost() -> None:
    for values in (memory(), memory(texts=TEXTS), memory(1, 1, (1,))):
        kept = MemoryTrace.check(values, "x").dump()
        assert list(kept) == ["schema", "step", *(key for key in values if key not in ("schema", "step"))]
        assert kept["reconstruction"][0]["layers"] == [
            [float(f"{value:.6g}") for value in layer] for layer in values["reconstruction"][0]["layers"]
        ]
        assert MemoryTrace.check(kept, "x").dump() == kept
