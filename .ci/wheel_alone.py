"""What an installed wheel does without any extra: it routes, and names the extra of an adapter that is asked for."""

import langchain_routellm
import llamaindex_routellm
from routellm_core import load_router


def install_line(adapter: object, name: str) -> str:
    """What an adapter without its framework says when a name of it is asked for."""
    try:
        getattr(adapter, name)
    except ImportError as exc:
        return str(exc)
    raise SystemExit(f"{name} came without its extra")


easy, hard = load_router().win_rates(["hi", "Prove that there are infinitely many primes."])
assert easy < hard, (easy, hard)
assert "pip install 'routellm-adapters[langchain]'" in install_line(langchain_routellm, "ChatRouteLLM")
assert "pip install 'routellm-adapters[llamaindex]'" in install_line(llamaindex_routellm, "RouteLLM")
print("the wheel routes by itself and names the extras that are missing")
