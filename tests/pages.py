"""The shell blocks of a page, and the script that runs them.

The `sh` blocks of a page run one after another in one shell, in an empty folder. A block of another language with a
title, such as ```` ```yaml title="order/stepwell.yaml" ````, is written to that file. A comment above an `sh` block
changes this:

- `<!-- not run: REASON -->`: the block is only read.
- `<!-- in the background -->`: the last command of the block starts a server, which runs until the page ends.
- `<!-- fails -->`: the block is one command, which must fail.

A comment that begins with `<!-- first run` and has further lines contains commands that the reader does not see. They
may call `wait_for_server`, after they have started one with `&`, and `stop_server`, which stops the last one.

The folders of a system (/var/lib, /backups) are below `$SYSTEM`. OTHER_SERVER is the page's server, by another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = re.compile(
    r"^<!-- first run\n(?P<hidden>.*?)^-->$"
    r"|^```\w+ title=\"(?P<file>[^\"\n]+)\"\n(?P<content>.*?)^```$"
    r"|^(?:<!-- (?P<mark>[^\n]*) -->\n)?(?P<indent> *)```(?:sh|bash|console)\n(?P<shown>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN, BACKGROUND, FAILS = "not run: ", "in the background", "fails"
HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(?:^|\s)#[^\n]*")
COMMAND = re.compile(r"(?:^|[\s(|;&`])stepwell((?:[^\S\n]+(?:'[^']*'|\"(?:[^\"\\]|\\.)*\"|[^\s|;&()'\"#]+|#(?=\S))+)*)")
SERVER = re.compile(r"(\bstepwell (?:dev|serve)\b)")
ADDRESS, TLS_ADDRESS = "127.0.0.1:8288", "stepwell.example.com:8288"
OTHER_SERVER = re.compile(r"https://stepwell\.example\.com(?!:)")
SYSTEM_FOLDER = re.compile(r"(?<=\s)/(?=(?:var/lib|backups)/)")
LAST_COMMAND = re.compile(r"(?:[^\n]*\\\n)*[^\n]*\Z")
FUNCTIONS = """\
is_up() { (: </dev/tcp/127.0.0.1/PORT) 2>/dev/null; }
wait_for_server() { until is_up; do kill -0 $! || { echo 'the server has ended' >&2; exit 1; }; sleep 0.05; done; }
stop_server() { kill $!; wait $! || true; }
"""


@dataclass(frozen=True)
class Block:
    line: int
    text: str
    mark: str = ""

    @property
    def reason(self) -> str | None:
        """Why the block is not run; None if it is."""
        return self.mark.removeprefix(NOT_RUN) if self.mark.startswith(NOT_RUN) else None

    def stepwell_commands(self) -> list[str]:
        """What follows `stepwell` in each command of the block."""
        text = COMMENT.sub("", HEREDOC.sub("", self.text.replace("\\\n", " ")))
        return [found[1].strip() for found in COMMAND.finditer(text)]


def blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        text = found["hidden"] or found["shown"] or _written(found["file"], found["content"])
        yield Block(line, re.sub(rf"^{found['indent'] or ''}", "", text, flags=re.MULTILINE), found["mark"] or "")


def _written(file: str, content: str) -> str:
    """The command that writes a file."""
    return f"cat > {file} <<'END_OF_FILE'\n{content}END_OF_FILE\n"


def script(page: str, port: int) -> str:
    """A bash script that runs the blocks of a page; empty if none is to run. Servers listen on `port`."""
    parts = [_of(block, port) for block in blocks(page) if block.reason is None]
    return "\n".join(["set -euo pipefail", FUNCTIONS.replace("PORT", str(port)), *parts]) if parts else ""


def _of(block: Block, port: int) -> str:
    text = SERVER.sub(rf"\1 --port {port}", block.text)
    for shown, real in ((ADDRESS, "127.0.0.1"), (TLS_ADDRESS, "stepwell.example.com")):
        text = text.replace(shown, f"{real}:{port}")
    text = SYSTEM_FOLDER.sub("$SYSTEM/", OTHER_SERVER.sub(f"http://localhost:{port}", text))
    head = f"echo '--- line {block.line}' >&2\n"
    if block.mark == FAILS:
        return f"{head}if {text.rstrip()}\nthen echo 'it did not fail' >&2; exit 1; fi\n"
    if block.mark != BACKGROUND:
        return head + text
    text = text.rstrip()
    found = LAST_COMMAND.search(text)
    assert found is not None
    return f"{head}{text[: found.start()]}{found[0].partition(' #')[0]} &\nwait_for_server\n"
