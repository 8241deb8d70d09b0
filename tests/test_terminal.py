"""Text from outside is escaped before it is printed on a terminal."""

from __future__ import annotations

import ast
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from rich.live import Live
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

import stepwell
from stepwell.core.terminal_text import escaped_json, one_line, visible
from stepwell.local.serve import JsonLines
from stepwell.log_lines import LogLines
from stepwell.terminal import Terminal, print_line, shown, styled

UNSAFE = "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)])) + (
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ud800\udfff"
)
HOSTILE = "[red]\x1b]52;c;cm0=\x07\x1b[2J\x9b31m\u202e\ud83d[/red][link=http://x]y[/link]"


def is_safe(text: str) -> bool:
    return not set(UNSAFE) & set(text)


def test_control_characters_are_replaced_and_other_text_stays() -> None:
    assert visible(f"a{UNSAFE}b") == "a" + "\ufffd" * len(UNSAFE) + "b"
    assert one_line(f"a{UNSAFE}\n\r\u2028b\tc") == "a" + "\ufffd" * (len(UNSAFE) + 3) + "b\tc"
    for text in ("", "plain", "a\n\tb", "Zoë שלום 日本 👩‍🚀 e\u0301"):
        assert visible(text) == text


def test_rendered_text_contains_no_control_characters() -> None:
    table = Table("a\x1b[31m")
    table.add_row(shown(HOSTILE), Text(HOSTILE))
    tree = Tree(Text(HOSTILE))
    tree.add(Text(HOSTILE)).add(styled((HOSTILE, "red"), HOSTILE))
    for renderable in (Text(HOSTILE), table, tree, Panel(Text(HOSTILE), title=Text(HOSTILE)), shown(HOSTILE)):
        file = io.StringIO()
        console = Terminal(file=file, width=300)
        console.print(renderable)
        console.print(HOSTILE, markup=False, soft_wrap=True)
        console.print_json(data={"a": HOSTILE.replace("\ud83d", "")})
        console.log(Text(HOSTILE))
        assert is_safe(file.getvalue())
        assert "[red]" in file.getvalue()


def test_sequences_for_colours_stay() -> None:
    file = io.StringIO()
    console = Terminal(file=file, width=80, force_terminal=True, color_system="standard")
    console.print(f"[green]ok[/] {shown(HOSTILE)}")
    with Live(Text(HOSTILE), console=console), Progress(TextColumn("{task.description}"), console=console) as progress:
        progress.add_task(shown(HOSTILE))
    text = file.getvalue()
    assert "\x1b[32mok\x1b[0m" in text
    assert "\x1b]52" not in text
    assert "\x1b[2J\x9b" not in text
    assert not set("\x07\x9b\u202e") & set(text)


def test_a_value_cannot_start_a_line_or_markup() -> None:
    file = io.StringIO()
    console = Terminal(file=file, width=300)
    for value in ("a\nerror: forged", "[bold]x", "[/]", "\\", "[link=http://x]y", ":warning:", "[red"):
        console.print(f"[green]ok[/] {shown(value)} [dim]end[/]")
        console.print(styled("ok ", (value, "red"), " end"))
    lines = file.getvalue().splitlines()
    assert len(lines) == 14
    assert all(line.startswith("ok ") and line.endswith("end") for line in lines)
    assert lines[2] == lines[3] == "ok [bold]x end"
    assert lines[10] == lines[11] == "ok :warning: end"


def test_json_stays_json_with_control_characters_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"a\x9b": HOSTILE.replace("\ud83d", ""), "b": "\x7f\u2066é"}
    text = escaped_json(orjson.dumps(data).decode())
    assert is_safe(text)
    assert orjson.loads(text) == data
    print_line(data)
    written = capsys.readouterr().out
    assert is_safe(written.rstrip("\n"))
    assert orjson.loads(written) == data


def test_logs_are_lines_without_control_characters() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        failed = sys.exc_info()
    record = logging.LogRecord("stepwell.a", logging.ERROR, "", 1, "said %s", (f"x\nERROR forged{HOSTILE}",), failed)
    text = LogLines().format(record)
    assert is_safe(text)
    assert not any(line.startswith("ERROR forged") for line in text.splitlines())
    record = logging.LogRecord("a", logging.ERROR, "", 1, HOSTILE.replace("\ud83d", "\x7f"), (), None)
    record.fields = {"event": "\x9b\u202e"}
    line = JsonLines().format(record)
    assert is_safe(line)
    assert orjson.loads(line)["event"] == "\x9b\u202e"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_several_lines_with_markup_are_written_like_single_lines(is_terminal: bool) -> None:
    long, wide = "x" * 300, "日本語" * 80
    texts = ["[cyan]event[/] a [dim]b[/]\n      started c", f"[red]{wide}[/]", long, "", "a\tb", shown("[red]x\\")]
    texts += [f"[bold]ok[/] {shown(HOSTILE)} [dim]end[/]"]

    def terminal() -> Terminal:
        return Terminal(file=io.StringIO(), width=40, force_terminal=is_terminal, color_system="standard")

    at_once, one_by_one = terminal(), terminal()
    at_once.print_markup("\n".join(texts))
    for text in texts:
        one_by_one.print(text, soft_wrap=True)
    assert at_once.file.getvalue() == one_by_one.file.getvalue()  # type: ignore[attr-defined]


# --- no other way to print -------------------------------------------------------------------------------------------

PACKAGE = Path(stepwell.__file__).parent
OTHERS = {
    "terminal.py": "it is the way",
    "cli/ui/output.py": "JSON of the commands, which it escapes, and questions",
    "cli/server/ending.py": "flushes",
    "cli/main.py": "the version",
    "cli/commands/schema.py": "a schema of ours",
    "cli/server/backup.py": "an archive, to a pipe",
    "aws/steps/http_step.py": "the log of a Lambda",
    "local/runners/python_worker.py": "a step's own process, whose output is read",
    "local/serve.py": "JSON lines, which it escapes",
}
CALLS = {"print", "typer.echo", "typer.secho", "typer.confirm", "typer.prompt", "click.echo", "Console", "rich.print"}


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(("testing/", "cli/commands/templates/")):
            yield name, ast.parse(path.read_text())


def test_everything_is_printed_through_the_console() -> None:
    found = set()
    for name, tree in _modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
                found.add((name, node.lineno, ast.unparse(node.func)))
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr", "sys.__stdout__"):
                found.add((name, node.lineno, ast.unparse(node)))
            if isinstance(node, ast.ImportFrom) and node.module in ("rich", "rich.markup", "rich.prompt"):
                found.add((name, node.lineno, f"from {node.module}"))
    asks = ("cli/run/approval_prompt.py", "sys.stdout")  # checks only whether stdout is a terminal
    others = {(name, line, what) for name, line, what in found if name not in OTHERS and (name, what) != asks}
    assert others == set(), "print through stepwell.terminal"


MARKUP = {
    "amount",
    "change",
    "command",
    "detail",
    "again",
    "colour",
    "default",
    "done",
    "level",
    "line",
    "live",
    "name",
    "note",
    "place",
    "registered_at",
    "runs",
    "state",
    "summary",
    "version",
    "where",
    "words",
    "_ENDS[status]",
    "_STYLES.get(value['state'], 'dim')",
    "_STYLES.get(source['state'], 'dim')",
}
"""Parts of lines that are markup, or contain values that were passed to `shown`."""
NUMBERS = {"attempt", "registered.version", "version", "live"}


def test_values_in_lines_with_markup_are_escaped() -> None:
    """Every value is a number, a time, or passed to `shown`. Otherwise it could contain markup or a line break."""
    bare = {
        (name, value)
        for name, tree in _modules()
        for line in _lines_with_markup(tree)
        for value in map(_bare, line.values)
        if value is not None and value not in MARKUP | NUMBERS
    }
    assert bare == set()


def _lines_with_markup(tree: ast.Module) -> Iterator[ast.JoinedStr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and "[/]" in ast.unparse(node):
            yield node
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("console.print", "console.print_markup", "stderr.print")
        ):
            is_plain = any(
                keyword.arg == "markup" and ast.unparse(keyword.value) == "False" for keyword in node.keywords
            )
            yield from (arg for arg in node.args if isinstance(arg, ast.JoinedStr) and not is_plain)


def _bare(part: ast.expr) -> str | None:
    """The value's expression, if the value can be a text from outside."""
    if not isinstance(part, ast.FormattedValue) or part.format_spec is not None or part.conversion == ord("r"):
        return None
    value = part.value
    if isinstance(value, ast.Call) and ast.unparse(value.func) in SAFE:
        return None
    if isinstance(value, ast.IfExp) and {type(value.body), type(value.orelse)} == {ast.Constant}:
        return None
    return ast.unparse(value)


SAFE = {"shown", "local_time", "duration", "len"}
