"""`infty export`: a finished run as one archive, to be carried to another machine, shared or put beside a paper."""

import shutil
import zipfile
from pathlib import Path

from infty.base.errors import MissingError, UsageError
from infty.base.files import replace_file
from infty.runs.folder import RECORDS, RunFolder
from infty.training.checkpoint import find_best_checkpoint, verify_best

FILES = (*RECORDS, "metrics.jsonl", "checkpoints/best.json")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date of zip archives: the same run gives the same bytes


def export_run(run: RunFolder, target: Path | None = None) -> Path:
    """Write a zip archive with the run's configuration, results and best checkpoint; return its path.

    Unpacked in a folder of runs, the run lies where training would have put it. target: by default named after the run.

    Raises:
        MissingError: The run is unfinished or damaged.
        UsageError: `target` exists already or can't be a file.
    """
    # Refuse what can't be written, before anything is.
    if not run.finished:
        raise MissingError(f"{run.path} is not finished; continue it with: {run.command() or 'infty train …'}")
    cell = run.read().key
    target = target or Path("-".join(cell.folder.parts) + ".zip")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; --out names a file, as {target / 'run.zip'}")
    if target.exists():
        raise UsageError(f"{target} is there already; --out names another file")
    if not target.parent.is_dir():
        raise UsageError(f"--out {target}: there is no folder {target.parent}")
    verify_best(run.checkpoints)

    # Add the files, of any size, a piece at a time.
    best = find_best_checkpoint(run.checkpoints)
    paths = [run.path / name for name in FILES if (run.path / name).is_file()]
    for folder, names in ((run.path / "eval", "*.json"), (run.checkpoints / "tokenizer", "*"), (best, "*")):
        paths += sorted(folder.glob(names))
    with replace_file(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in paths:
            member = zipfile.ZipInfo((cell.folder / path.relative_to(run.path)).as_posix(), EARLIEST)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            member.file_size = path.stat().st_size  # large ones need another kind of entry
            with path.open("rb") as source, archive.open(member, "w") as entry:
                shutil.copyfileobj(source, entry)
    return target
