"""Nothing that is read can run code, and what is written has the modes that the user's umask says."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import infty
from infty.model.config import Gpt2ModelConfig
from infty.model.gpt2 import build_gpt2
from tests.conftest import Infty, clean_environment, save_gpt2

ROOT = Path(infty.__file__).parent
# Modules whose files can run code when they are read.
PICKLERS = {"pickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
NEVER = {
    *(f"builtins.{name}" for name in BUILTINS),
    *(f"torch.{name}" for name in ("load", "save", "serialization", "hub.load", "jit.load")),
    *(f"os.{name}" for name in ("system", "popen", "chmod", "fchmod", "lchmod", "umask")),
    *(f"yaml.{name}" for name in ("load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all")),
    *(f"yaml.{name}" for name in ("Loader", "CLoader", "FullLoader", "CFullLoader", "UnsafeLoader", "CUnsafeLoader")),
    *("tempfile.mktemp", "shutil.unpack_archive", "runpy.run_path", "importlib.util.spec_from_file_location"),
}
# What a file may do after all: `bench --against FILE` says that it runs the file.
MAY = {
    "commands/bench/yardstick.py": ["importlib.util.spec_from_file_location"],
    "model/tensors.py": ["path.chmod"],
}
NUMPY = {f"numpy.{name}" for name in ("load", "save", "savez", "savez_compressed")}


class Checker(ast.NodeVisitor):
    """Collects what a file does that none of ours may do."""

    def __init__(self, tree: ast.Module) -> None:
        self.faults: list[str] = []
        self.names: dict[str, str] = {}  # what an import made of a name
        self.zips: set[str] = set()  # names of open zip files
        self.tables: set[str] = set()  # names of tables of text
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and _is_text(node.value.values):
                self.tables |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    top = name.name.split(".")[0]
                    self.names[name.asname or top] = name.name if name.asname else top
            elif isinstance(node, ast.ImportFrom):
                self.names |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        self.visit(tree)

    def dotted(self, node: ast.AST) -> str:
        """What a name or an attribute of one refers to, by its full name; else nothing."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (of := self.dotted(node.value)):
            return f"{of}.{node.attr}"
        return ""

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            if name.name.split(".")[0] in PICKLERS:
                self.faults.append(name.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for name in node.names:
            full = f"{node.module}.{name.name}"
            if full.split(".")[0] in PICKLERS or {full, node.module} & NEVER:
                self.faults.append(full)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self.dotted(node) in NEVER or node.attr in ("chmod", "lchmod"):
            self.faults.append(self.dotted(node) or node.attr)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        opened = {
            item.optional_vars.id
            for item in node.items
            if isinstance(item.context_expr, ast.Call)
            and self.dotted(item.context_expr.func) == "zipfile.ZipFile"
            and isinstance(item.optional_vars, ast.Name)
        }
        before, self.zips = self.zips, self.zips | opened
        self.generic_visit(node)
        self.zips = before

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not _is(value, False):
                self.faults.append("trust_remote_code")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name, given = self.dotted(node.func), {word.arg: word.value for word in node.keywords}
        if isinstance(node.func, ast.Name) and name in BUILTINS:
            self.faults.append(name)
        if name in NUMPY and not _is(given.get("allow_pickle"), False):
            self.faults.append(f"{name} without allow_pickle=False")
        for word in ("trust_remote_code", "shell"):
            if word in given and not _is(given[word], False):
                self.faults.append(word)
        if name == "yaml.load":
            loader = given.get("Loader", node.args[1] if len(node.args) > 1 else None)
            if loader is None or self.dotted(loader).rpartition(".")[2] not in ("PlainLoader", "StrictLoader"):
                self.faults.append("yaml.load with another loader than ours")
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("extract", "extractall"):
            safe = isinstance(node.func.value, ast.Name) and node.func.value.id in self.zips
            if not safe and not _is(given.get("filter"), "data"):
                self.faults.append('extracted without filter="data"')
        if name == "importlib.import_module" and not (node.args and self.is_written_here(node.args[0])):
            self.faults.append("import of what is not written here")
        self.generic_visit(node)

    def is_written_here(self, node: ast.expr) -> bool:
        """Whether a text stands in the file: as it is, or in a table of its module."""
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            return node.value.id in self.tables
        return _is_text([node])


def _is(node: ast.expr | None, value: bool | str) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value


def _is_text(nodes: list[ast.expr]) -> bool:
    return all(isinstance(node, ast.Constant) and isinstance(node.value, str) for node in nodes)


def faults(source: str) -> list[str]:
    return Checker(ast.parse(source)).faults


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_ours_can_run_what_it_reads(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == MAY.get(path.relative_to(ROOT).as_posix(), [])


@pytest.mark.parametrize(
    "source",
    [
        *(f"import {name}" for name in sorted(PICKLERS)),
        "def f():\n    from pickle import loads",
        "import joblib.parallel",
        *(f"{name}('1')" for name in sorted(BUILTINS)),
        "import builtins\nbuiltins.eval('1')",
        "import torch\ntorch.load('a')",
        "import torch as t\nread = t.load",
        "from torch import load as read",
        "from torch.serialization import load",
        "from torch import save\nsave({}, 'a')",
        "import torch\ntorch.hub.load('a', 'b')",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, yaml.FullLoader)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader if safe else StrictLoader)",
        "from yaml import unsafe_load",
        "import yaml\nyaml.full_load(text)",
        "import yaml\nclass StrictLoader(yaml.Loader): pass",
        "import numpy as np\nnp.load('a')",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
        "import numpy as np\nnp.load('a', allow_pickle=0)",
        "from numpy import save\nsave('a', b)",
        "read(trust_remote_code=True)",
        "read(trust_remote_code=trusted)",
        "read(**{'trust_remote_code': True})",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import os as o\no.popen('ls')",
        "from os import system",
        "import tempfile\ntempfile.mktemp()",
        "import tarfile\nwith tarfile.open(p) as archive:\n    archive.extractall(f)",
        "import tarfile\nwith tarfile.open(p) as archive:\n    archive.extractall(f, filter='tar')",
        "import tarfile\ntarfile.open(p).extract('a')",
        "import zipfile\nwith zipfile.ZipFile(p) as a:\n    pass\na.extractall(f)",
        "import shutil\nshutil.unpack_archive(p)",
        "import os\nos.chmod('a', 511)",
        "from pathlib import Path\nPath('a').chmod(511)",
        "import os\nos.umask(0)",
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module as get\nget(f'infty.{name}')",
        "from importlib import import_module\ndef f(table): import_module(table['a'])",
        "from importlib import import_module\nHOMES = {'a': name}\nimport_module(HOMES['a'])",
    ],
)
def test_the_check_sees(source: str) -> None:
    assert len(faults(source)) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('a')",
        "import torch\ntorch.compile(f)",
        "import yaml\nyaml.safe_load(text)\nyaml.load(text, StrictLoader)\nclass StrictLoader(yaml.SafeLoader): pass",
        "import numpy as np\nnp.load('a', allow_pickle=False)",
        "import tarfile\nwith tarfile.open(p) as archive:\n    archive.extractall(f, filter='data')",
        "import zipfile\nwith zipfile.ZipFile(p) as archive:\n    archive.extractall(f)",
        "from importlib import import_module\nHOMES = {'a': 'infty.a'}\nimport_module(HOMES['a'])",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
    ],
)
def test_the_check_lets_pass(source: str) -> None:
    assert faults(source) == []


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A GPT-2 whose folder has code and a pickle in it, and the file that appears where one of them is run."""
    folder, sprung = tmp_path / "model", tmp_path / "sprung"
    save_gpt2(folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_evil.Config",
        "AutoModelForCausalLM": "modeling_evil.Model",
        "AutoTokenizer": ["tokenization_evil.Tokenizer", None],
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("configuration", "modeling", "tokenization"):
        (folder / f"{name}_evil.py").write_text(f"from pathlib import Path\nPath({str(sprung)!r}).touch()\n")
    (folder / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {sprung}'\ntR.".encode())
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder, sprung


@pytest.mark.slow
def test_a_folder_of_weights_runs_no_code(trap: tuple[Path, Path], infty: Infty) -> None:
    folder, sprung = trap
    words = ("train", "gpt2", "--scale", "smoke", "--model", "gpt2", "--set", "pretraining=null")
    done = infty(*words, "--set", f"model.weights={folder}")
    assert done.returncode == 0, done.stderr
    assert not sprung.exists()
    with pytest.raises(AttributeError):  # it has no such class, but was run to look for it
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert sprung.exists()


@pytest.mark.parametrize(
    "evil",
    [
        {"transformers_weights": "other.safetensors"},
        {"attn_implementation": "owner/kernel"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"dtype": "bogus"},
        {"n_layer": "x"},
        {"id2label": 3},
    ],
    ids=str,
)
def test_a_folder_s_configuration_has_no_say_in_how_its_weights_are_loaded(
    trap: tuple[Path, Path], evil: dict[str, Any]
) -> None:
    folder, _ = trap
    (folder / "config.json").write_text(json.dumps({**json.loads((folder / "config.json").read_text()), **evil}))
    wanted = load_file(folder / "model.safetensors")
    save_file({name: torch.zeros_like(tensor) for name, tensor in wanted.items()}, folder / "other.safetensors")
    sizes = Gpt2ModelConfig(
        num_layers=2, num_heads=2, hidden_size=16, num_positions=16, segment_length=16, dropout=0.0, kind="gpt2"
    )
    model = build_gpt2(sizes, vocab_size=400)
    model.load_decoder(folder)
    found = model.base.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


# Three commands as one process.
COMMANDS = """
import sys
from infty.cli import main
for words in ("train sort --scale smoke", "eval sort --scale smoke", "report"):
    sys.argv = ["infty", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, words
"""


@pytest.mark.slow
@pytest.mark.parametrize("mask", [pytest.param("022", marks=pytest.mark.slower), "077"])
def test_the_umask_is_kept_and_nothing_temporary_stays(mask: str, tmp_path: Path) -> None:
    temporary, home = tmp_path / "temporary", tmp_path / "home"
    temporary.mkdir()
    home.mkdir()
    subprocess.run(
        ["sh", "-c", f'umask {mask}; exec "$0" "$@"', sys.executable, "-c", COMMANDS],
        cwd=home,
        env=clean_environment(home, TMPDIR=str(temporary), WANDB_MODE=""),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=True,
    )
    paths = [path for path in home.rglob("*") if not path.is_symlink()]  # whose own modes mean nothing
    assert {"result.json", "requirements.txt", "debug.log", ".lock", "sort-smoke.md"} <= {path.name for path in paths}
    wrong = {str(path.relative_to(home)): oct(path.stat().st_mode & 0o7777) for path in paths if not fits(path, mask)}
    assert wrong == {}
    assert [path for path in paths if path.name.endswith(".tmp") or path.name.startswith((".archive-", ".tmp"))] == []
    # torch makes a folder for what it compiles, whether it does or not
    assert [path for path in temporary.rglob("*") if not path.name.startswith("torchinductor_")] == []


def fits(path: Path, mask: str) -> bool:
    mode, free = path.stat().st_mode & 0o7777, 0o777 if path.is_dir() else 0o666
    return mode == free & ~int(mask, 8)
