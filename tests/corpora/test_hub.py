"""The hub, played by a server of our own on this machine: what is asked of it, and what is believed."""

import hashlib
import io
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pyarrow import parquet

from infty.corpora.registry import KNOWN
from tests.conftest import Infty
from tests.corpora.conftest import ARTICLES
from tests.corpora.test_tokenizers import gpt2_files

UNPINNED = "c0ffee" * 6 + "abcd"  # commit of the main branch of repositories that infty knows nothing of


def table(text: str) -> bytes:
    rows = [line if line.strip() else "" for line in text.splitlines(keepends=True)]
    file = io.BytesIO()
    parquet.write_table(pa.table({"text": rows}), file)
    return file.getvalue()


def books(texts: list[str]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table({"text": texts}), file)
    return file.getvalue()


@dataclass
class Hub:
    """files: of each repository. cut: how often a file breaks off half-way. lie: send other bytes than are listed."""

    files: dict[str, dict[str, bytes]]
    address: str = ""
    cut: int = 0
    lie: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if body:
            self.hub.asked.append((path, self.headers.get("Range")))
        for repository, files in self.hub.files.items():
            kind = "datasets/" if "wikitext" in repository or "pg19" in repository else ""
            pins = {known.hub.repository: known.hub.revision for known in KNOWN.values() if known.hub}
            revision = pins.get(repository, UNPINNED)
            wanted = {revision} if repository in pins else {revision, "main"}
            if path in {f"/api/{kind or 'models/'}{repository}/revision/{name}" for name in wanted}:
                return self.send_json(self.listing(repository, revision, files))
            for name, data in files.items():
                if path == f"/{kind}{repository}/resolve/{revision}/{name}":
                    return self.send_file(data, revision, body)
        known = any(f"/{repository}/" in path for repository in self.hub.files)
        self.send_response(404)
        self.send_header("X-Error-Code", "RevisionNotFound" if known else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def listing(self, repository: str, revision: str, files: dict[str, bytes]) -> dict[str, Any]:
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "blobId": hashlib.sha1(data).hexdigest(),
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130},
            }
            for name, data in files.items()
        ]
        return {"id": repository, "sha": revision, "siblings": siblings, "tags": [], "private": False, "downloads": 0}

    def send_json(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_file(self, data: bytes, revision: str, body: bool) -> None:
        etag = hashlib.sha256(data).hexdigest()
        if self.hub.lie:
            data = data[:-1] + b"?"
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        part = data[start:]
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", revision)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        if self.hub.cut and not asked:
            self.hub.cut -= 1
            part = part[: len(part) // 2]
            self.close_connection = True
        self.wfile.write(part)


@pytest.fixture
def hub() -> Iterator[Hub]:
    repository = "Salesforce/wikitext"
    names = {"validation": "valid", "test": "test", "train": "valid"}
    files = {
        f"wikitext-103-v1/{split}-00000-of-00001.parquet": table(ARTICLES[name] * (50 if split == "train" else 1))
        for split, name in names.items()
    }
    found = Hub({repository: {**files, "README.md": b"x", "wikitext-2-v1/test-00000-of-00001.parquet": b"y"}})
    handler = type("OwnHandler", (Handler,), {"hub": found})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        found.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


def environment(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def test_fetching_says_first_what_and_how_large_and_gives_the_classic_text(
    hub: Hub, infty: Infty, tmp_path: Path
) -> None:
    done = infty("data", "fetch", "wikitext", "--split", "validation", "--split", "test", "--json", **environment(hub))
    assert done.returncode == 0, done.stderr
    sizes = [
        len(hub.files["Salesforce/wikitext"][f"wikitext-103-v1/{s}-00000-of-00001.parquet"])
        for s in ("validation", "test")
    ]
    first = done.stderr.splitlines()[0]
    assert first.startswith(
        f"fetching wikitext (validation, test): {sum(sizes) / 1e6:,.1f} MB in 2 files from Salesforce/wikitext"
    )
    assert "b08601e" in first
    assert "CC BY-SA 3.0" in first
    folder = tmp_path / "corpora" / "wikitext"
    assert (folder / "validation.txt").read_text(encoding="utf-8") == ARTICLES["valid"]
    assert (folder / "test.txt").read_text(encoding="utf-8") == ARTICLES["test"]
    assert json.loads(done.stdout)["source"] == f"Salesforce/wikitext@{KNOWN['wikitext'].hub.revision}"  # pyright: ignore
    assert not (folder / "train.txt").exists()
    assert {path.rpartition("/")[2] for path, _ in hub.asked if path.endswith("parquet")} == {
        "validation-00000-of-00001.parquet",
        "test-00000-of-00001.parquet",
    }
    assert sorted(p.name for p in folder.parent.iterdir() if not p.name.endswith(".lock")) == ["wikitext"]


def test_a_download_that_breaks_off_is_gone_on_with(hub: Hub, infty: Infty, tmp_path: Path) -> None:
    text = ARTICLES["valid"] + "".join(f"{random.getrandbits(4000):x} \n" for _ in range(26_000))
    hub.files["Salesforce/wikitext"]["wikitext-103-v1/train-00000-of-00001.parquet"] = table(text)
    hub.cut = 1
    done = infty("data", "fetch", "wikitext", "--split", "train", **environment(hub))
    if done.returncode:
        assert "the same command goes on from there" in done.stderr
        assert "Traceback" not in done.stderr
        done = infty("data", "fetch", "wikitext", "--split", "train", **environment(hub))
    assert done.returncode == 0, done.stderr
    assert any(asked for path, asked in hub.asked if "train" in path)  # only the rest was asked for
    assert (tmp_path / "corpora" / "wikitext" / "train.txt").read_text(encoding="utf-8") == text


def test_a_file_that_is_not_what_is_listed_is_refused(hub: Hub, infty: Infty, tmp_path: Path) -> None:
    hub.lie = True
    done = infty("data", "fetch", "wikitext", "--split", "test", **environment(hub))
    assert done.returncode == 3
    assert "is not what the hub lists at b08601e, and was removed" in done.stderr
    assert not (tmp_path / "corpora" / "wikitext").exists()


def test_gpt2s_tokeniser_has_pinned_sums(hub: Hub, infty: Infty, tmp_path: Path) -> None:
    folder = gpt2_files(tmp_path / "made")  # right in form, and not GPT-2's
    hub.files["openai-community/gpt2"] = {name: (folder / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    done = infty("data", "fetch", "gpt2", **environment(hub))
    assert done.returncode == 3
    assert "vocab.json is not what the hub lists" in done.stderr


def test_training_fetches_what_its_scale_needs_by_itself(hub: Hub, infty: Infty, tmp_path: Path) -> None:
    words = (
        "train",
        "wikitext",
        "--scale",
        "smoke",
        "--set",
        "task.corpus=wikitext",
        "--set",
        "task.train.split=validation",
    )
    done = infty(*words, "--json", **environment(hub))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("fetching wikitext (test, validation)")
    assert json.loads(done.stdout)["data"]["name"] == "wikitext"
    assert not any("train-0" in path for path, _ in hub.asked)


def test_of_a_large_split_only_the_files_with_the_first_documents_are_fetched(
    hub: Hub, infty: Infty, tmp_path: Path
) -> None:
    """PG-19's 28,602 training books lie in 23 files; two of them are wanted, so the first file is enough."""
    book = "In the beginning there was a long book about a town and its people .\n" * 40
    hub.files["emozilla/pg19"] = {
        **{f"data/train-{i:05}-of-00023.parquet": books([f"{book} {i} {j}" for j in range(5)]) for i in range(23)},
        **{
            f"data/{split}-00000-of-00001.parquet": books([f"{book} {i}" for i in range(4)])
            for split in ("validation", "test")
        },
    }
    settings = [f"task.{split}.last=2" for split in ("train", "validation", "test")]
    words = [word for setting in ("task.corpus=pg19", *settings) for word in ("--set", setting)]
    done = infty("train", "pg19", "--scale", "smoke", *words, "--json", **environment(hub))
    assert done.returncode == 0, done.stderr
    assert {path.rpartition("/")[2] for path, _ in hub.asked if "train-" in path} == {"train-00000-of-00023.parquet"}
    result = json.loads(done.stdout)
    assert result["training_data"]["documents"] == 2
    assert result["data"]["title"].endswith("subset")
    whole = infty("train", "pg19", "--scale", "smoke", "--set", "task.corpus=pg19", **environment(hub))
    assert whole.returncode == 3
    assert "only the first 2 documents of train of pg19 are here" in whole.stderr
    assert "infty data fetch pg19 --replace" in whole.stderr


def test_splits_that_are_missing_are_fetched_and_the_others_stay(hub: Hub, infty: Infty, tmp_path: Path) -> None:
    left = tmp_path / "corpora" / ".wikitext.download" / "wikitext-103-v1" / "train-00000-of-00002.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(table(ARTICLES["test"]))  # of a fetch of the whole that was stopped
    infty("data", "fetch", "wikitext", "--split", "test", **environment(hub))
    assert not (tmp_path / "corpora/wikitext/train.txt").exists()
    settings = ("--set", "task.corpus=wikitext", "--set", "task.train.split=validation")
    done = infty("train", "wikitext", "--scale", "smoke", *settings, **environment(hub))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("fetching wikitext (validation)")
    assert (tmp_path / "corpora/wikitext/test.txt").read_text(encoding="utf-8") == ARTICLES["test"]
    assert infty("data", "verify").returncode == 0


@pytest.mark.parametrize("why", ["auto_fetch", "HF_HUB_OFFLINE", "network"])
def test_without_a_network_it_ends_within_seconds_with_both_commands(infty: Infty, tmp_path: Path, why: str) -> None:
    given = {
        "auto_fetch": {"INFTY_AUTO_FETCH": "false"},
        "HF_HUB_OFFLINE": {"HF_HUB_OFFLINE": "1"},
        "network": {"HF_ENDPOINT": "http://127.0.0.1:9"},  # nobody listens there
    }[why]
    done = infty("train", "wikitext", timeout=30, **given)
    assert done.returncode == 3, done.stderr
    assert "infty data import wikitext FOLDER" in done.stderr
    assert "infty data fetch wikitext" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_one_s_own_text_is_never_looked_for_on_the_hub(hub: Hub, infty: Infty) -> None:
    done = infty("train", "text", **environment(hub))
    assert done.returncode == 3
    assert "infty train text --data FOLDER" in done.stderr
    assert hub.asked == []
