"""W&B, the real one: what it is told, and that no fault of it, of its server or of the network touches training."""

import contextlib
import hashlib
import json
import os
import platform
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

import infty
from tests.conftest import Infty, clean_environment

WORDS = ("train", "sort", "--scale", "smoke", "--name", "long", "--set", "training.steps=30")
RUN = Path("runs/sort/smoke/infty@x4+long/seed-0")
ALONE = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$0" "$@"')
KEY, USER = "0" * 40, "name-of-the-user"
# A run in small: what is done with it stands between.
SCRIPT = """
import os, signal, sys, warnings
from pathlib import Path
from infty.runs.metrics import WandbRun
warnings.showwarning = lambda message, *_: print(message)
WandbRun.FINISH = 1.0
run = WandbRun(project="project", name="name", id="abcd1234", dir=Path(sys.argv[1]), mode=sys.argv[2], config={})
run.log(1, {"a/b": 1.0})
%s
run.close()
print("went on")
"""


class Handler(BaseHTTPRequestHandler):
    """Answers as W&B's server does, but for what it is deaf to."""

    protocol_version = "HTTP/1.1"
    server: Any  # a Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request: Any = json.loads(body) if self.path.endswith("/graphql") else {}
        kind, given = request.get("operationName") or self.path.rpartition("/")[2], request.get("variables", {})
        self.server.asked.append((kind, given, str(self.headers).encode() + self.path.encode() + body))
        if kind == self.server.deaf:
            self.server.over.wait()
        project = {"id": "p", "name": "infty", "entity": {"id": "e", "name": "somebody"}}
        bucket = {"id": "b", "name": given.get("name"), "config": "{}", "project": project, "historyLineCount": 0}
        files = [{"name": name, "uploadUrl": f"{self.server.address}/{name}"} for name in given.get("files", [])]
        answers: dict[str, Any] = {
            "RunResumeStatus": {"model": {**project, "bucket": None}},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}},
        }
        answer = json.dumps({"data": answers.get(kind, {})}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_CONNECT = do_POST  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """W&B's server, and the proxy for all others. What it was asked: kind, variables, and everything as bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, dict[str, Any], bytes]] = []
        self.deaf, self.over = "", threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def environment(self, **more: str) -> dict[str, str]:
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self.address)
        return {"WANDB_MODE": "", "WANDB_BASE_URL": self.address, **proxies, **more}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture
def alone() -> tuple[str, ...]:
    """What runs a command without a network."""
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], check=False).returncode:
        pytest.skip("no network namespaces here")
    return ALONE


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sum of the weights that are trained without W&B."""
    folder = tmp_path_factory.mktemp("without")
    environment = clean_environment(folder, INFTY_WANDB="disabled")
    subprocess.run(
        [sys.executable, "-m", "infty", *WORDS], cwd=folder, env=environment, capture_output=True, check=True
    )
    return weights(folder)


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / RUN / "checkpoints/step-00000030/model.safetensors").read_bytes()).hexdigest()


def warned(said: str) -> list[str]:
    """The warnings in what a command said, which must hold no traceback and no other word of W&B's."""
    assert not re.search(r"(?m)^(Traceback|Exception|wandb)", said), said
    return [line for line in said.splitlines() if "warning" in line]


def scripted(folder: Path, mode: str, between: str, *prefix: str, **environment: str) -> list[str]:
    """What a run in small says."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", SCRIPT % between, str(folder), mode],
        env=clean_environment(folder, **environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def records(file: Path) -> list[tuple[str, Any]]:
    """The records of a .wandb file by their kind. They stand in blocks of 32 KiB, in parts where they don't fit."""
    data, at, whole, found = file.read_bytes(), 7, b"", []
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        length, part = struct.unpack("<HB", data[at + 4 : at + 7])
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if part in (1, 4):  # all of it, or the last part
            record: Any = Record.FromString(whole)
            found.append((record.WhichOneof("record_type"), record))
            whole = b""
    return found


def private(folder: Path, data: bytes) -> list[str]:
    """What of this machine, its user and the command stands in it."""
    paths = (folder, sys.prefix, Path(infty.__file__).parents[1])
    words = (*map(str, paths), f'"{platform.node()}"', USER, "example.org", "train sort", "--scale")
    return [word for word in words if word.encode() in data]


def check_sent(server: Server, folder: Path) -> dict[str, Any]:
    """Nothing was sent but what docs/runs.md says. Returns what a run was begun with."""
    assert {kind for kind, _, _ in server.asked} == {
        *("RunResumeStatus", "UpsertBucket", "CreateRunFiles", "file_stream"),
        *("config.yaml", "requirements.txt", "wandb-summary.json"),
    }
    assert private(folder, b"".join(body for _, _, body in server.asked)) == []
    return next(
        {key: value for key, value in given.items() if value is not None}
        for kind, given, _ in server.asked
        if kind == "UpsertBucket"
    )


@pytest.mark.slow
def test_offline_tells_nobody_and_what_sync_would_send_is_what_readme_says(
    server: Server, without: str, tmp_path: Path, infty: Infty
) -> None:
    """In a git repository with an address, and with W&B's reports of itself switched on."""
    for words in ("init -q", "config user.email somebody@example.org", "remote add origin https://example.org/secret"):
        subprocess.run(["git", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    done = infty(*WORDS, **server.environment(WANDB_ERROR_REPORTING="true", USER=USER, LOGNAME=USER))
    assert (done.returncode, warned(done.stderr), weights(tmp_path)) == (0, [], without)
    assert server.asked == []

    (folder,) = (tmp_path / RUN / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    found = records(file)
    assert {kind for kind, _ in found} == {"header", "run", "files", "telemetry", "summary", "history", "exit"}
    assert private(tmp_path, b"\n".join(str(record).encode() for _, record in found)) == []
    (run,) = (record.run for kind, record in found if kind == "run")
    fields = {field.name for field, _ in run.ListFields()}
    assert fields == {"run_id", "project", "config", "display_name", "start_time", "telemetry", "resume"}
    telemetry = {field.name for _, record in found if record.telemetry for field, _ in record.telemetry.ListFields()}
    known = {"imports_init", "imports_finish", "feature", "python_version", "cli_version", "platform"}
    assert telemetry <= known | {"huggingface_version"}
    assert [path.name for path in (folder / "files").iterdir()] == ["requirements.txt"]
    for line in (folder / "files/requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"[\w.-]+==[\w.+!-]+", line)

    environment = clean_environment(tmp_path, **server.environment(WANDB_API_KEY=KEY, WANDB_ERROR_REPORTING="false"))
    del environment["WANDB_MODE"]  # which the command `wandb` reads itself
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=True)
    begun = check_sent(server, tmp_path)
    assert begun.keys() == {"name", "project", "displayName", "config", "program"}
    assert begun["program"] == "-m wandb.__main__"  # of the command `wandb`, its path


@pytest.mark.slow
def test_online_sends_what_readme_says(server: Server, without: str, tmp_path: Path, infty: Infty) -> None:
    done = infty(*WORDS, **server.environment(WANDB_MODE="online", WANDB_API_KEY=KEY, USER=USER, LOGNAME=USER))
    assert (done.returncode, warned(done.stderr), weights(tmp_path)) == (0, [], without)
    begun = check_sent(server, tmp_path)
    assert begun.keys() == {"name", "project", "displayName", "config", "program"}
    assert (begun["displayName"], begun["program"]) == ("/".join(RUN.parts[1:]), "infty")
    assert json.loads(begun["config"]).keys() == {"_wandb", "cell", "task", "model", "training"}
    (summary,) = (body for kind, _, body in server.asked if kind == "wandb-summary.json")
    assert b"test/accuracy" in summary


@pytest.mark.slower
@pytest.mark.slow
def test_online_without_a_network_is_a_warning(alone: tuple[str, ...], without: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*alone, sys.executable, "-m", "infty", *WORDS],
        cwd=tmp_path,
        env=clean_environment(tmp_path, INFTY_WANDB="online", WANDB_API_KEY=KEY),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (line,) = warned(done.stderr)
    assert "infty: warning: W&B could not start (" in line
    assert "deadline exceeded" in line  # W&B's own, and not what we wait for W&B
    assert line.endswith("metrics go to metrics.jsonl only")
    assert (done.returncode, weights(tmp_path)) == (0, without)


@pytest.mark.slower
def test_online_without_an_account_asks_nothing_of_a_terminal(
    alone: tuple[str, ...], without: str, tmp_path: Path
) -> None:
    """W&B asks where stdin and stderr are terminals; an answer would be awaited for ever."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*alone, sys.executable, "-m", "infty", *WORDS],
        cwd=tmp_path,
        env=clean_environment(tmp_path, WANDB_MODE="online", TERM="xterm"),
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while select.select([ours], [], [], 60)[0] and (more := os.read(ours, 4096)):
                said += more
        except OSError:  # nobody has the terminal open any more
            pass
        finally:
            process.kill()  # does nothing but where it waits
    os.close(ours)
    (line,) = warned(said.decode())
    assert "W&B could not start (No API key configured" in line
    assert (process.returncode, weights(tmp_path)) == (0, without)


def test_a_key_that_is_none_is_a_warning_also_with_stdin_closed(tmp_path: Path) -> None:
    said = scripted(tmp_path, "online", "", "sh", "-c", 'exec "$0" "$@" <&-', WANDB_API_KEY="abc")
    (line, last) = said
    assert "W&B could not start (WANDB_API_KEY invalid: API key must have 40+ characters" in line
    assert last == "went on"


@pytest.mark.slow
def test_a_server_that_falls_silent_holds_nothing_up(server: Server, tmp_path: Path) -> None:
    """In the end, when W&B sends the rest."""
    server.deaf = "CreateRunFiles"
    lines = scripted(tmp_path, "online", "", **server.environment(WANDB_API_KEY=KEY))
    assert lines == ["W&B could not finish (Timed out finishing run.): metrics.jsonl has them all", "went on"]


def children(pid: int) -> set[int]:
    """The processes that its threads started. A thread may end while it is read; its children are another's then."""
    found = set[int]()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= set(map(int, (thread / "children").read_text().split()))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_run_outlives_the_process_of_wandb(without: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "infty", *WORDS],
        cwd=tmp_path,
        env=clean_environment(tmp_path, WANDB_MODE=""),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith("step 6/30"):
                (child,) = children(process.pid)
                os.kill(child, signal.SIGKILL)
    (line,) = warned(said)
    assert re.fullmatch(r"infty: warning: W&B failed \(.+\): metrics go to metrics.jsonl only", line)
    assert (process.returncode, weights(tmp_path)) == (0, without)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("between", "said"),
    [
        ("WandbRun.BOUND = 1.0", ["W&B could not finish (no answer in 1 s): metrics.jsonl has them all"]),
        # a second signal, which acts at once
        ("signal.signal(signal.SIGALRM, lambda *_: sys.exit('stopped'))\nsignal.setitimer(signal.ITIMER_REAL, 0.5)\n"
         "try: run.close()\nexcept SystemExit as end: print(end, run.run)", ["stopped None"]),
    ],
)  # fmt: skip
def test_a_process_of_wandb_that_hangs_is_ended(between: str, said: list[str], tmp_path: Path) -> None:
    """Its output is ours: were it left behind, whoever reads that would wait for ever."""
    hang = "WandbRun.END = 1.0; print(run.process.pid); os.kill(run.process.pid, signal.SIGSTOP)"
    pid, *lines = scripted(tmp_path, "offline", f"{hang}\n{between}")
    assert lines == [*said, "went on"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.slow
def test_a_file_where_wandb_wants_its_folder_is_a_warning(without: str, tmp_path: Path, infty: Infty) -> None:
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / RUN / "wandb").touch()
    done = infty(*WORDS, WANDB_MODE="")
    (line,) = warned(done.stderr)
    assert "W&B could not start ([Errno 20] Not a directory" in line
    assert (done.returncode, weights(tmp_path)) == (0, without)
