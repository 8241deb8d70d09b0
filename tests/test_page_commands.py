"""The commands in the pages work.

Each `sh` block of docs/ and README.md runs, block after block, in a folder of the page's own. The examples of two
generated pages (WITH_TESTS_OF_THEIR_OWN) run one by one, each with what it needs. Blocks with the mark
`<!-- not run: REASON -->` do not; REASONS lists the reasons and what such a block must contain. Every command of
`stepwell` in any block, run or not, must exist and have the options that the block gives it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.pages import Block, blocks, script
from tests.ports import free_port

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_TESTS_OF_THEIR_OWN = {
    "docs/reference/cli.md": ("tests/test_cli_page.py", "tests/push/test_cli_page.py"),
    "docs/reference/http-api.md": ("tests/test_http_page.py",),
}
REASONS = {
    "needs an AWS account": r"--env\b|\bcdk\b|\baws \b|rehearsal\.real|STEPWELL_ENV",
    "clones and installs": r"git clone|pip install|npm ci",
    "changes your shell's configuration": r"--install-completion",
    "needs other tools": r"--lang|\bage\b",
    "needs a broker": r"\bredis-cli\b|\bstepwell sources\b|\bCELERY_BROKER\b",
    "needs workers": r"\bFAKTORY_URL\b|--faktory\b|\bworker\.(js|py)\b|\bstepwell workers\b",
}
SHIM = """#!{python} -IS
import array, json, os, signal, socket, sys
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect({address!r})
signal.signal(signal.SIGTERM, lambda *_: client.shutdown(socket.SHUT_WR))  # ends when the command has ended
request = json.dumps({{"arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}}).encode()
client.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
code = int.from_bytes(client.recv(8), "little", signed=True)
sys.exit(code if code >= 0 else 128 - code)
"""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_blocks(is_run: bool) -> list[Any]:
    """The pages that have blocks; or those of which a block runs."""
    found = [page for page in PAGES if any(not is_run or b.reason is None for b in blocks(page.read_text("utf-8")))]
    if is_run:
        found = [page for page in found if name(page) not in WITH_TESTS_OF_THEIR_OWN]
    return [pytest.param(page, id=name(page)) for page in found]


class CommandServer:
    """Runs `stepwell` for the shells of pages, each command as a fork of one process (`tests.commands`)."""

    def __init__(self, folder: Path) -> None:
        self._running: list[commands.Command] = []
        address = str(folder / "commands")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(address)
        self._listener.listen()
        (folder / "stepwell").write_text(SHIM.format(python=sys.executable, address=address))
        (folder / "stepwell").chmod(0o755)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        content, files, _, _ = socket.recv_fds(client, 1 << 20, 3)
        request = json.loads(content)
        command = commands.Command(request["arguments"], request["env"], files=files, cwd=request["cwd"])
        for fd in files:
            os.close(fd)
        self._running.append(command)
        threading.Thread(target=self._stop_with, args=(client, command), daemon=True).start()
        code = command.wait()
        with suppress(OSError):
            client.send(code.to_bytes(8, "little", signed=True))
        client.close()

    def _stop_with(self, client: socket.socket, command: commands.Command) -> None:
        """Stops the command if the shell kills the process that stands for it."""
        with suppress(OSError):
            if client.recv(1) == b"" and command.returncode is None:
                os.kill(command.pid, signal.SIGTERM)

    def close(self) -> None:
        self._listener.close()
        for command in self._running:
            command.kill()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Path]:
    """A folder with the command `stepwell`, and with settings of curl."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / ".curlrc").write_text("fail\n")  # an answer that is an error fails
    server = CommandServer(folder)
    yield folder
    server.close()


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl")
@pytest.mark.parametrize("page", with_blocks(is_run=True))
def test_the_commands_of_a_page_work(page: Path, shell: Path, tmp_path: Path) -> None:
    folder, port = tmp_path / "work", free_port()
    folder.mkdir()
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "STEPWELL", "AWS"))}
    variables |= {
        "PATH": f"{shell}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STEPWELL_URL": f"http://127.0.0.1:{port}",
        "REPOSITORY": str(ROOT),
        "SYSTEM": str(tmp_path / "system"),
        "CURL_HOME": str(shell),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    with (tmp_path / "output").open("w+") as output:
        done = subprocess.run(
            ["bash", "-c", script(page.read_text("utf-8"), port)],
            cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=220, check=False,
        )  # fmt: skip
        output.seek(0)
        assert done.returncode == 0, output.read()


@pytest.mark.parametrize("page", with_blocks(is_run=False))
def test_a_block_that_is_not_run_has_a_reason_that_holds(page: Path) -> None:
    wrong = [
        f"{name(page)}:{block.line}: {block.reason}"
        for block in blocks(page.read_text("utf-8"))
        if block.reason is not None and not re.search(REASONS.get(block.reason, r"(?!)"), block.text)
    ]
    assert wrong == [], f"the reasons are {', '.join(REASONS)}"


@pytest.mark.parametrize("page", WITH_TESTS_OF_THEIR_OWN)
def test_a_page_with_tests_of_its_own_has_no_marks(page: str) -> None:
    """So that every block of it runs."""
    assert [block.mark for block in blocks((ROOT / page).read_text("utf-8")) if block.mark] == []
    assert all((ROOT / file).exists() for file in WITH_TESTS_OF_THEIR_OWN[page])


@pytest.mark.parametrize("page", with_blocks(is_run=False))
def test_every_command_exists_with_its_options(page: Path) -> None:
    wrong = [problem for block in blocks(page.read_text("utf-8")) for problem in _problems(block)]
    assert wrong == []


def _problems(block: Block) -> Iterator[str]:
    known = _known()
    for text in block.stepwell_commands():
        words = shlex.split(text)
        group = {command for command in known if words[:1] == list(command[:1])}
        command = next((c for c in sorted(group, key=len, reverse=True) if tuple(words[: len(c)]) == c), None)
        command = command or next((c for c in group if c[1:] == ("show",)), None)
        if command is None and words and not words[0].startswith("-"):
            yield f"line {block.line}: there is no `stepwell {' '.join(words[:2])}`"
            continue
        for word in words:
            option = word.partition("=")[0]
            if command is not None and option.startswith("--") and option not in known[command]:
                yield f"line {block.line}: `stepwell {' '.join(command)}` has no {option}"


@cache
def _known() -> dict[tuple[str, ...], set[str]]:
    """The options of each command."""
    sys.path.insert(0, str(ROOT / "docs" / "generate"))
    try:
        from cli_commands import commands as all_commands
    finally:
        sys.path.pop(0)
    return {
        words: {"--help", *(flag for p in command.params for flag in (*p.opts, *p.secondary_opts))}
        for words, command in all_commands()
    }
