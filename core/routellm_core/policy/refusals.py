"""Refusals: where an answer says that its author cannot or will not answer."""

from __future__ import annotations

import re

REFUSAL = re.compile(
    r"""\b(?:
        i(?:\s+am|[’']?m)\s+(?:(?:very|so|really)\s+)?
        (?:sorry|afraid|unable|not\s+able|not\s+(?:sure|certain|familiar|aware))
      | i\s+(?:apologi[sz]e|do\s*n[o’']?t\s+know|have\s+no\s+(?:idea|information|knowledge)|lack)
      | i\s+(?:do\s*n[o’']?t|do\s+not)\s+have\s+(?:enough|access|any|the|sufficient|information|knowledge|real[\s-]time)
      | (?:i|we|it)\s+(?:can\s?not|can[’']?t|could\s+not|couldn[’']?t|won[’']?t|will\s+not|am\s+unable\s+to)
        \s+(?:\w+\s+)?(?:be\s+)?(?:answer|determined?|provided?|help|assist|say|tell|find|verify|confirm|access|give|recall|discuss
          |share|comply|fulfil+|complete|do\s+that|known|identify|predict|see|view|solve)
      | (?:can\s?not|can[’']?t|unable\s+to)\s+(?:be\s+)?(?:answered|determined?|answer|provide|help|assist)
      | as\s+an?\s+(?:ai|artificial|large\s+language|language\s+model)
      | (?:there\s+is\s+)?(?:not\s+enough|insufficient)\s+(?:information|data|context)
      | no\s+idea
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether a text says that its author cannot or will not answer."""
    return REFUSAL.search(text) is not None
