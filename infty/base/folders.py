"""Walk a folder as people have them: linked folders are entered, and what systems and editors hide is left out."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Folders that systems make: macOS in archives, Windows, Synology and Linux on disks. In them are copies, or remains.
SYSTEM = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found")


def walk_folder(
    folder: Path,
    leave_out: Callable[[Path, str], None] | None = None,
    refuse: Callable[[Path], str | None] | None = None,
) -> Iterator[Path]:
    """Yield the paths of all files below a folder, in order; linked folders are entered, each folder once.

    leave_out: told of each file and folder that is left out, and why. refuse: says why a folder is not entered, or
    None.
    """
    # Folders are told apart by their real paths: there are file systems that number none of them.
    top = os.path.realpath(folder)
    seen = {top}
    stack, why = _list(folder, top) if os.path.isdir(folder) else ([(folder, None)], None)
    if why is not None and leave_out:
        leave_out(folder, why)
    while stack:
        path, real = stack.pop()
        why = _explain_name(path.name) if path != folder else None
        if why is None and real is None:
            yield path
        elif why is None and real is not None:
            why = _explain_place(path, real, seen) or (refuse(path) if refuse else None)
            if why is None:
                seen.add(real)
                inner, why = _list(path, real)
                stack += inner
        if why is not None and leave_out:
            leave_out(path, why)


def _list(folder: Path, real: str) -> tuple[list[tuple[Path, str | None]], str | None]:
    """List what is in a folder, the last name first, with the real path of each folder; and why it can't be listed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
    except OSError as fault:
        return [], f"that can't be read ({fault.strerror})"
    found = []
    for entry in entries:
        within = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
        found.append((folder / entry.name, within if os.path.isdir(entry.path) else None))
    return found, None


def _explain_name(name: str) -> str | None:
    """Say why a file or a folder of this name is left out; None if it isn't."""
    return "hidden" if name.startswith(".") else "made by a system" if name in SYSTEM else None


def _explain_place(path: Path, real: str, seen: set[str]) -> str | None:
    """Say why a folder is not entered; None if it is. real: its path without links; seen: those of folders entered."""
    if path.is_symlink() and Path(os.path.realpath(path.parent)).is_relative_to(real):
        return "linked to a folder above"  # which would never end
    return "here already by another name" if real in seen else None
