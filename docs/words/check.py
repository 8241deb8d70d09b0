"""Checks the English of the code and the docs: words, the length of sentences, names of variables.

`python docs/words/check.py [PATH ...]` prints each place as `file:line: what is wrong`, and exits with 1 if there is
any. Without paths it reads all Python files and all Markdown pages of the repository. What is looked for is in
`words.toml`.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent
_SKIPPED = ("tests/fixtures/", "tests/planted/bugs/", "docs/words/")
_FENCE = re.compile(r"^\s*(```|~~~)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_NOT_PROSE = re.compile(r"^\s*(\||#|<|!\[|-{3,}|\{%|:::)")
_LIST_ITEM = re.compile(r"^\s*([-*+]|\d+\.)\s+")
_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?:;])[)\"'*_]*\s+")


@dataclass(frozen=True, slots=True)
class Place:
    path: Path
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Rules:
    any_phrase: re.Pattern[str]
    phrases: tuple[tuple[re.Pattern[str], str], ...]
    longest: int
    variables: frozenset[str]
    budgets: dict[str, int]  # words, and in how many lines of the package each may stand


def read_rules(path: Path = _HERE / "words.toml") -> Rules:
    table = tomllib.loads(path.read_text("utf-8"))
    phrases = tuple((re.compile(rf"\b(?:{text})\b", re.I), instead) for text, instead in table["phrases"].items())
    return Rules(
        re.compile("|".join(pattern.pattern for pattern, _ in phrases), re.I),
        phrases,
        table["sentences"]["longest"],
        frozenset(table["variables"]["names"]),
        table["budgets"],
    )


def check(path: Path, rules: Rules) -> Iterator[Place]:
    """Every place of a Python file or a Markdown page that breaks a rule, in the order of its lines."""
    text = path.read_text("utf-8")
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    found = _of_python(text, rules) if path.suffix == ".py" else _of_markdown(text, rules)
    yield from (Place(shown, line, problem) for line, problem in sorted(found))


def _of_python(text: str, rules: Rules) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and token.string in rules.variables:
            yield token.start[0], f"`{token.string}` does not say what it holds"
        elif token.type == tokenize.COMMENT:
            yield from _phrases(token.start[0], token.string, rules)
    for line, paragraph in _docstrings(text):
        yield from _phrases(line, paragraph, rules)
        yield from _long_sentences(line, paragraph, rules)


def _docstrings(text: str) -> Iterator[tuple[int, str]]:
    """The paragraphs of all docstrings, each with the line of the file on which it begins."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            yield from _paragraphs(first.lineno, first.value.value.splitlines())


def _of_markdown(text: str, rules: Rules) -> Iterator[tuple[int, str]]:
    text = _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)
    for line, paragraph in _paragraphs(1, _without_code(text.splitlines())):
        yield from _phrases(line, paragraph, rules)
        yield from _long_sentences(line, paragraph, rules)


def _without_code(lines: Sequence[str]) -> list[str]:
    kept, in_code = [], False
    for line in lines:
        if _FENCE.match(line):
            in_code = not in_code
            kept.append("")
        else:
            kept.append("" if in_code else line)
    return kept


def _paragraphs(first: int, lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """List items, and runs of lines between empty ones. Tables and headings are left out."""
    begins, paragraph = first, list[str]()
    for number, line in enumerate([*lines, ""], first):
        starts_another = not line.strip() or _NOT_PROSE.match(line) or _LIST_ITEM.match(line)
        if starts_another and paragraph:
            yield begins, " ".join(paragraph)
            paragraph = []
        if line.strip() and not _NOT_PROSE.match(line):
            begins = begins if paragraph else number
            paragraph.append(_LIST_ITEM.sub("", line).strip())


def _phrases(line: int, text: str, rules: Rules) -> Iterator[tuple[int, str]]:
    prose = _CODE.sub("`", text)
    if not rules.any_phrase.search(prose):
        return
    for pattern, instead in rules.phrases:
        if found := pattern.search(prose):
            yield line, f'"{found[0]}": {instead}'


def _long_sentences(line: int, paragraph: str, rules: Rules) -> Iterator[tuple[int, str]]:
    prose = _LINK.sub(r"\1", _CODE.sub("code", paragraph))
    for sentence in _SENTENCE_ENDS.split(prose):
        words = len(re.findall(r"\w[\w'’-]*", sentence))
        if words > rules.longest:
            yield line, f'a sentence of {words} words, at most {rules.longest}: "{sentence[:50]}..."'


def _files(paths: Sequence[str]) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--", *paths] if paths else ["git", "ls-files", "*.py", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    wanted = [name for name in listed if name.endswith((".py", ".md")) and not name.startswith(_SKIPPED)]
    return [ROOT / name for name in wanted if (ROOT / name).is_file()]


def over_budget(rules: Rules, package: Path = ROOT / "stepwell") -> Iterator[str]:
    """Words that are good English, but of which there are so many that they stand for something not_in_output."""
    lines = [line for path in package.rglob("*.py") for line in path.read_text("utf-8").splitlines()]
    for word, most in rules.budgets.items():
        found = sum(re.search(rf"\b{word}\b", line) is not None for line in lines)
        if found > most:
            yield f'stepwell/: "{word}" is in {found} lines, at most {most}: name whose thing it is'


def main(paths: Sequence[str]) -> int:
    rules = read_rules()
    problems = [str(place) for path in _files(paths) for place in check(path, rules)]
    problems += [] if paths else over_budget(rules)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
