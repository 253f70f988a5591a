"""The page in a real browser, from disk: no errors, no requests to anybody, every link leads somewhere."""

import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, sync_playwright

from infty.config.catalog import SHIPPED
from infty.report import write_report

RESULTS = SHIPPED / "results" / "laptop"
MISSING = "sort/transformer-xl@x16/seed-1"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, kept = tmp_path_factory.mktemp("report"), tmp_path_factory.mktemp("kept") / "laptop"
    for name in ("sort", "gpt2"):  # all would take long to draw
        shutil.copytree(RESULTS / name, kept / name)
    shutil.rmtree(kept / MISSING)
    for seen in kept.rglob("*-memory.json"):  # the pictures of one row's memory are enough
        if "infty@" not in str(seen):
            seen.unlink()
    write_report([kept], folder, ["html"], SHIPPED)
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """Opened, offline; whatever it complains of or asks for is in `told` of the test."""
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.goto(report.as_uri())
    yield page
    context.close()


@pytest.mark.slow
def test_it_opens_without_an_error_and_asks_for_nothing_outside_itself(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    told: list[str] = []
    asked: list[Request] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request))  # a method of a list is none of its own
    page.goto(report.as_uri())
    assert told == []
    assert [r.url for r in asked if not r.url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
    assert page.evaluate("document.images.length") == len(list(report.parent.glob("*.svg")))
    page.close()


@pytest.mark.slow
def test_every_link_leads_to_one_place_of_the_page(page: Page) -> None:
    links = page.eval_on_selector_all("a", "links => links.map(a => a.getAttribute('href'))")
    names = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(links) > 50
    assert all(link.startswith("#") for link in links)
    assert {link[1:] for link in links} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_a_figure_leads_to_its_run_command_commit_versions_data_and_protocol(page: Page) -> None:
    row = page.locator("table", has=page.locator("caption", has_text="sort, laptop scale: accuracy")).locator(
        "tr", has=page.get_by_role("rowheader", name="transformer-xl", exact=True)
    )
    row.get_by_text("(n = 2)").click()
    target = page.locator(":target")
    assert target.bounding_box()["y"] < 900  # pyright: ignore[reportOptionalSubscript]
    told = target.inner_text()
    for words in (
        "infty train sort --model transformer-xl --case x16 --scale laptop --seed 2 --threads 1",
        "commit",
        "torch",
        "sha256",
        "sort-accuracy-v1",
    ):
        assert words in told
    assert "infty train sort --model transformer-xl --case x16 --scale laptop --seed 1" in told  # missing


@pytest.mark.slow
def test_it_is_read_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the tables"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_is_shown_light_and_dark_wide_and_narrow(page: Page, scheme: str, width: int) -> None:
    """Nothing but what scrolls by itself is wider than the screen, and the picture of it is not blank."""
    page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pixels = np.asarray(Image.open(BytesIO(page.screenshot())).convert("L"), dtype=float)
    assert pixels.std() > 10
    assert (pixels[0, 0] > 200) == (scheme == "light")


@pytest.mark.slow
def test_it_prints(page: Page) -> None:
    """On pages of paper: the PDF has several."""
    page.emulate_media(media="print")
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") > 2


def test_names_from_disk_are_text_and_never_marks(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "sort/x"
    shutil.copytree(RESULTS / "sort/infty@x8/seed-0", run)
    result = run / "result.json"
    result.write_text(result.read_text().replace("infty train sort", "<script>alert(1)</script>"))
    write_report([tmp_path / "runs"], tmp_path / "out", ["html"], SHIPPED)
    text = (tmp_path / "out/index.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
