"""Names, paths and prompts that others chose, made harmless for a terminal and for Markdown.

HTML needs nothing from here but `printable`: its templates escape by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# What Markdown shows as it stands wherever it is put: letters, digits, and punctuation that begins no block, link,
# emphasis, HTML or reference. Underscores are literal within a word, brackets unless a link or a definition follows.
_LITERAL = re.compile(
    r"(?!\s|.*\s\Z|[-+=](?!\d)|\d+[.)](?:\s|$)|.*(?:://|www\.))"
    r"(?:[^\W_]|(?<=[^\W_])_(?=[^\W_])|[ .,;:%()/+=?'\"–×−±-]|\[(?:[^\W_]|[ .,;:%+–×−-])*\](?![(\[:]))*"
)


def printable(text: str) -> str:
    r"""Text whose characters all show: the others are written as escapes, such as ``\n`` and ``\x1b``.

    Control characters, line ends, lone surrogates and marks that change the direction of writing can rewrite a
    terminal, break a table or hide what a name says.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Markdown(str):
    """Text that is Markdown already; `markdown` returns it unchanged."""

    __slots__ = ()


def markdown(value: object) -> Markdown:
    """A value as it stands where Markdown would show it literally, else as a code span.

    In a code span nothing is interpreted: no HTML, no link, no emphasis and no mention.
    """
    if isinstance(value, Markdown):
        return value
    text = printable(str(value))
    return Markdown(text) if _LITERAL.fullmatch(text) else code(text)


def code(value: object) -> Markdown:
    """A value as a code span; the fence is longer than any run of backticks in the value."""
    text = printable(str(value))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # a renderer takes one space off each end where both have one
    pad = " " if not text or text[0] in "` " or text[-1] in "` " else ""
    return Markdown(f"{fence}{pad}{text}{pad}{fence}")


def pipe_table(header: Sequence[object], rows: Iterable[Sequence[object]], *, align: str = "") -> Markdown:
    """A Markdown table.

    Args:
        header: Titles of the columns.
        rows: The cells of each row; numbers and names, or `Markdown`.
        align: One letter a column, ``l`` or ``r``; the default leaves all to the left.
    """
    # A pipe ends a cell even within a code span, unless it is escaped; the table takes the backslash away again.
    lines = ["| " + " | ".join(markdown(cell).replace("|", r"\|") for cell in row) + " |" for row in (header, *rows)]
    rule = "|" + "".join("---:|" if column == "r" else "---|" for column in align or "l" * len(header))
    return Markdown("\n".join([lines[0], rule, *lines[1:]]))
