"""What an import takes of a folder, and what it leaves out, each with the reason."""

import hashlib
import os
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from infty.base.errors import LONG, one_line
from infty.base.files import blame_file
from infty.base.folders import walk_folder
from infty.corpora.manifest import MANIFEST
from infty.corpora.text_pieces import MARK, PIECE

SHOWN = 3  # names for each reason


class Contents:
    """The files of a folder, or the one file; each of them is taken, or left out with a reason."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.taken = folder, list[Path]()
        self._left_out = dict[str, dict[Path, str]]()  # by the reason, with more about some
        self.paths = list(walk_folder(folder, self.leave_out, _explain_maker))

    def leave_out(self, path: Path, why: str, more: str = "") -> None:
        """Note that a file, or a folder with all that is in it, is left out."""
        self._left_out.setdefault(why, {})[path] = more

    def take(self, paths: Iterable[Path]) -> None:
        """Note which files are taken; the rest is left out."""
        self.taken = list(paths)
        known = {path for group in self._left_out.values() for path in group}.union(self.taken)
        for path in self.paths:
            if path not in known:
                self.leave_out(path, "of another kind or place" if path.exists() else "linked to what is not there")

    def choose_different(self, paths: Sequence[Path], keep: Container[Path] = ()) -> list[Path]:
        """Leave out each file, but those to keep, that holds the text of one before it; return the others."""
        first, chosen = dict[str, Path](), list[Path]()
        for path in paths:
            same = first.setdefault(_sum_text(path) if path.is_file() and len(paths) > 1 else str(path), path)
            if same is path or path in keep:
                chosen.append(path)
            else:
                self.leave_out(path, "with the text of another file", f" = {self._name(same)}")
        return chosen

    def describe_left_out(self) -> str:
        """Say, after a semicolon, what is left out and why: how many, and the first names. Empty if nothing is."""
        groups = []
        for why, found in self._left_out.items():
            names = [f"{self._name(path)}{more}" for path, more in list(found.items())[:SHOWN]]
            groups.append(f"{len(found):,} {why} ({', '.join(names)}{', …' * (len(found) > SHOWN)})")
        return one_line(f"; left out: {', '.join(groups)}", LONG) if groups else ""

    def _name(self, path: Path) -> str:
        name = path.name if path == self.folder else str(path.relative_to(self.folder))
        return name + "/" * os.path.isdir(path)


def is_blank(path: Path) -> bool:
    """Tell whether a file holds nothing but white space and a byte order mark. MissingError if it can't be read."""
    with blame_file(path), path.open("rb") as file:
        first = file.read(PIECE).removeprefix(MARK.encode())
        return not first.strip() and not any(piece.strip() for piece in iter(lambda: file.read(PIECE), b""))


def _sum_text(path: Path) -> str:
    """Return a sum of a file, the same with and without a byte order mark and Windows' carriage returns."""
    digest = hashlib.sha256()
    with blame_file(path), path.open("rb") as file:
        digest.update(file.read(PIECE).removeprefix(MARK.encode()).replace(b"\r", b""))
        while piece := file.read(PIECE):
            digest.update(piece.replace(b"\r", b""))
    return digest.hexdigest()


def _explain_maker(folder: Path) -> str | None:
    """Say that infty itself made a folder: a corpus, a run or a report, whose texts are copies; else None."""
    is_run = all((folder / name).exists() for name in ("config.yaml", "status.json"))
    is_report, manifest = (folder / ".pictures.json").exists(), folder / MANIFEST
    is_data = manifest.is_file() and manifest.read_bytes().startswith(b'{\n  "schema": ')
    return "made by infty" if is_run or is_report or is_data else None
