"""The text of errors: what came, as it was written, what was wanted and what to do."""

import reprlib


def quoted(text: object, limit: int = 80) -> str:
    r"""Returns the text in quotation marks, safe and short enough to stand in a message.

    Control characters, direction overrides and what else doesn't print become escapes. A text of
    more than `limit` characters, at least 8, loses its middle: a path keeps the name at its end.

    Example:
        >>> quoted("dog\x1b[31m\n.png")
        "'dog\\x1b[31m\\n.png'"
        >>> quoted("a" * 100 + ".png", limit=12)
        "'aaaaa…aa.png'"
    """
    text = str(text)
    if len(text) > limit:
        head = limit // 2 - 1
        text = f"{text[:head]}…{text[head + 1 - limit :]}"
    return repr(text)


class Shown(str):
    """A value as a message shows it: escaped, at most 80 characters of it, however deep it is.

    Example:
        >>> Shown("dog" * 40) == quoted("dog" * 40)
        True
        >>> Shown([1, [2.5, None]])
        '[1, [2.5, None]]'
    """

    def __new__(cls, value: object, *, exactly: bool = False) -> "Shown":
        """Makes the text of a value, or takes a text of our own exactly as it is."""
        if isinstance(value, Shown):
            return value
        if exactly:
            return super().__new__(cls, value)
        if isinstance(value, str):
            return super().__new__(cls, quoted(value))
        short = reprlib.Repr()
        short.maxstring = short.maxother = 80
        return super().__new__(cls, quoted(short.repr(value))[1:-1])

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, bool]]:
        """Returns what makes it again in another process: its text, not to be quoted twice."""
        return (str(self),), {"exactly": True}


def refused(function: str, wanted: str, **given: object) -> ValueError:
    """Returns the error of a call whose arguments can't be used, with the call as it was written.

    Args:
        function: The public name that was called.
        wanted: What the arguments have to be, and what to do.
        **given: Those that can't be used, as they came.

    Example:
        >>> refused("embed", "alpha is a weight in [0, 2], 1 for none", alpha=3)
        ValueError('embed(alpha=3): alpha is a weight in [0, 2], 1 for none; got 3')
    """
    call = ", ".join(f"{name}={Shown(value)}" for name, value in given.items())
    got = " and ".join(map(Shown, given.values()))
    return ValueError(f"{function}({call}): {wanted}; got {got}")
