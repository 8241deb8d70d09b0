"""The check of words finds what it should, at the right line, and leaves the rest alone."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

CHECK: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "docs/words/check.py"))
RULES = CHECK["read_rules"]()


def problems(tmp_path: Path, name: str, text: str) -> list[str]:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return [f"{place.line}: {place.problem}" for place in CHECK["check"](path, RULES)]


def test_a_docstring_with_a_phrase_that_is_not_wanted_is_found(tmp_path: Path) -> None:
    text = 'def f():\n    """Runs it.\n\n    One rule: nothing else.\n    """\n'
    assert problems(tmp_path, "a.py", text) == ['4: "One rule": say the rule itself']


def test_so_is_a_comment_and_the_paragraph_of_a_page(tmp_path: Path) -> None:
    assert problems(tmp_path, "a.py", "x = 1  # upon this\n")[0].startswith('1: "upon"')
    assert problems(tmp_path, "a.md", "# Title\n\nText,\nand upon that more.\n")[0].startswith('3: "upon"')


@pytest.mark.parametrize(
    "text",
    ["```sh\necho upon\n```\n", "The option `upon` is old.\n", "| upon | a table |\n|---|---|\n", "# Upon\n"],
)
def test_code_tables_and_headings_are_not_prose(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, "a.md", text) == []


def test_a_text_of_a_program_is_not_prose(tmp_path: Path) -> None:
    assert problems(tmp_path, "a.py", 'x = "upon"\n') == []


def test_a_variable_must_say_what_it_holds(tmp_path: Path) -> None:
    assert problems(tmp_path, "a.py", "\ntold = 1\nretold = 2\n") == ["2: `told` does not say what it holds"]


def test_a_long_sentence_is_found_where_its_paragraph_begins(tmp_path: Path) -> None:
    long = "word " * RULES.longest
    assert problems(tmp_path, "a.md", f"Short.\n\n{long.strip()}.\n") == []
    (found,) = problems(tmp_path, "a.md", f"Short.\n\n{long}more.\n")
    assert found.startswith(f"3: a sentence of {RULES.longest + 1} words")


def test_sentences_end_at_a_full_stop_a_colon_or_an_item_of_a_list(tmp_path: Path) -> None:
    half = "word " * (RULES.longest - 5)
    assert problems(tmp_path, "a.md", f"{half}: {half}; {half}. {half}\n") == []
    assert problems(tmp_path, "a.md", f"- {half}\n- {half}\n1. {half}\n") == []


def test_the_text_of_a_link_counts_and_the_address_does_not(tmp_path: Path) -> None:
    words = "word " * (RULES.longest - 1)
    assert problems(tmp_path, "a.md", f"{words}[more](https://a.example/b-c/d/e/f).\n") == []


def test_a_budget_counts_the_lines_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# its\n# its its\n# bits\n")
    over_budget = CHECK["over_budget"]
    most = RULES.budgets["its"]
    RULES.budgets["its"] = 2
    try:
        assert list(over_budget(RULES, tmp_path)) == []
        RULES.budgets["its"] = 1
        assert len(list(over_budget(RULES, tmp_path))) == 1
    finally:
        RULES.budgets["its"] = most
