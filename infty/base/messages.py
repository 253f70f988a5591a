"""Why something was refused, in words for a message: of libraries, and of files that anyone may have made."""

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
