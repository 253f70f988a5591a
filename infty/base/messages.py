"""Words of messages: why something was refused, and names and texts as messages quote them."""

import difflib
from collections.abc import Iterable

LONG = 1000  # signs of a message with a path in it


def reason(fault: BaseException) -> str:
    """What a library says, in one line; the kind of its error where it says nothing."""
    from pydantic import ValidationError  # whose import takes longer than a `--help`

    if isinstance(fault, ValidationError):
        first = fault.errors(include_url=False, include_input=False)[0]
        return flattened(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))
    return flattened(str(fault)) or type(fault).__name__


def flattened(text: str) -> str:
    """A text of unknown make in one line, cut where it is long."""
    return one_line(" ".join(text.split()))


def one_line(text: str, length: int = 200) -> str:
    """A text as part of a message: what is no letter or sign is escaped, and what is too long is cut."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[: length + 1])
    return text if len(text) <= length else f"{text[:length]}…"


def suggest(name: str, allowed: Iterable[str]) -> str:
    """'did you mean …?', or what is allowed where nothing is near."""
    allowed = list(map(str, allowed))
    close = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(allowed) or 'nothing'}"
