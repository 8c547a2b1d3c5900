"""Names of others, in Markdown and on a terminal: shown as they are, and never obeyed."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from routellm_core.report.escaping import Markdown, code, markdown, pipe_table, printable

NASTY = [
    "<script>alert(1)</script>",
    "<!-- comment",
    "a | b",
    "a \\| b",
    "`tick`",
    "``two`` and ```three",
    "ends in `",
    " spaces ",
    "two\nlines",
    "# heading",
    "- item",
    "1. item",
    "---",
    "> quote",
    "*bold* _italic_ ~~gone~~ __init__",
    "[text](javascript:alert(1))",
    "![image](x.png)",
    "[text]: x",
    "[_text_]",
    "see https://example.com or www.example.com or me@example.com",
    "&lt; &amp; &#60;",
    "\x1b[31mred\x1b[0m \x9b2J \x07 \r \x00",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpt \N{ZERO WIDTH SPACE} \ud800",
    "\\",
    "$x$ @user #1 !",
    "",
]
# What people call their models: these must read as they are in the source too.
PLAIN = ["gpt-4.1-mini", "mistralai/Mixtral-8x7B-Instruct-v0.1", "claude-3:beta", "sw_ranking", "mf, Arena + judge",
         "0.626 [0.605, 0.648]", "-0.3", "1.5", "45.0%", "modèle 模型"]  # fmt: skip

renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
anything = st.one_of(st.text(), st.text("`|\\<>*_[]()!#-+1.~& \n\x1bab", max_size=12))


def shown(inline):
    """The text that a reader sees of an inline token; anything but text and code is a failure."""
    assert {child.type for child in inline.children} <= {"text", "code_inline", "text_special"}
    return "".join(child.content for child in inline.children)


@pytest.mark.parametrize("text", NASTY + PLAIN)
def test_printable_leaves_nothing_that_commands_a_terminal(text):
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


def test_printable_says_which_character_it_was():
    assert printable("a\nb\x1b[31m\x9b\N{RIGHT-TO-LEFT OVERRIDE}\ud800") == r"a\nb\x1b[31m\x9b\u202e\ud800"
    assert printable("modèle 模型 🙂") == "modèle 模型 🙂"


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_names_stay_as_they_are(text):
    assert markdown(text) == text


@given(anything)
def test_markdown_shows_any_text_and_obeys_none(text):
    for line in (f"Model {markdown(text)} wins.", f"- {markdown(text)}", f"# {code(text)}"):
        inlines = [token for token in renderer.parse(line) if token.type == "inline"]
        if text.strip():
            assert len(inlines) == 1
            assert printable(text).strip() in shown(inlines[0])
    blocks = {token.type for token in renderer.parse(f"- {markdown(text)}")}
    assert blocks <= {"bullet_list_open", "list_item_open", "paragraph_open", "inline", "paragraph_close",
                      "list_item_close", "bullet_list_close"}  # fmt: skip


@given(st.lists(st.tuples(anything, anything), min_size=1, max_size=4))
@example([(text, text) for text in NASTY])
def test_a_table_keeps_its_cells_whatever_is_in_them(rows):
    tokens = renderer.parse(pipe_table(["name", "value | unit"], rows, align="lr"))
    assert tokens[0].type == "table_open"
    assert tokens[-1].type == "table_close"
    cells = [shown(token) for token in tokens if token.type == "inline"]
    assert [cell.strip() for cell in cells] == [
        "name", "value | unit", *(printable(text).strip() for row in rows for text in row)
    ]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_what_a_host_may_turn_into_a_link_stands_in_code(text):
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", markdown(text))
    assert not re.search(r"://|www\.|[@#$&<]", outside)


def test_markdown_is_escaped_once():
    assert markdown(code("a|b")) == "`a|b`"
    assert isinstance(pipe_table(["a"], []), Markdown)
