"""Mathematical expressions: one way of writing for each, and whether an answer states one."""

from __future__ import annotations

import re

from routellm_core.labelling.reading.quantities import plain_math

_FUNCTIONS = {"sqrt", "sin", "cos", "tan", "log", "ln", "exp", "pi", "inf", "infty", "frac", "cup", "text", "boxed"}
_SIGNS = re.compile(r"[\^√π∞≤≥<>=+*]|\\[a-z]+|\d[a-z]\b|^[(\[].*,.*[)\]]$")
_LEADING_NAME = re.compile(r"\A[A-Za-z](?:\([A-Za-z]\))?=(?=[^=]+\Z)")


def is_expression(text: str) -> bool:
    """Whether a text is a formula, a point or an interval rather than prose."""
    words = re.findall(r"[^\W\d_]{3,}", text)
    return _SIGNS.search(text.strip()) is not None and all(word in _FUNCTIONS for word in words)


def canonical(text: str) -> str:
    """An expression without the freedom that writing it has: spaces, LaTeX, multiplication signs, needless braces."""
    text = re.sub(r"\s+", " ", plain_math(text).replace("$", " "))
    for name, plain in (("pi", "pi"), ("infty", "inf"), ("sqrt", "sqrt"), ("cup", "∪"), ("leq?", "≤"), ("geq?", "≥")):
        text = re.sub(rf"\\{name}(?![a-z])\s*", plain, text)
    text = text.replace("π", "pi").replace("∞", "inf").replace("**", "^")
    text = re.sub(r"(?:√|sqrt)\s*(\w+)", r"sqrt(\1)", text).replace("√", "sqrt")
    text = re.sub(r"\\([a-z]+)", r"\1", text).replace("{", "(").replace("}", ")")
    text = re.sub(r"\s*[×*]\s*", "", text)
    text = re.sub(r"\s*([/^=,<>≤≥∪])\s*|(?<=[(\[])\s+|\s+(?=[)\]])", r"\1", text)
    text = re.sub(r"(?<=[\w)\]])(?<![A-Za-z]{2})\s*([-+])\s*", r"\1", text)
    text = re.sub(r"(?<![A-Za-z])\((-?\w+)\)", r"\1", text)
    text = re.sub(r"(?<=\d)\s+(?=sqrt|pi\b|[a-z]\b)", "", text)
    return re.sub(r"\s+", " ", text).strip().rstrip(".")


def states_expression(text: str, expression: str) -> bool:
    """Whether a text holds an expression that is not a part of a longer one."""
    wanted = _LEADING_NAME.sub("", canonical(expression))
    return re.search(rf"(?<![\w^/+.-]){re.escape(wanted)}(?![\w^/+=-]|\.\d)", canonical(text)) is not None
