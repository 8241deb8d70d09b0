"""What README shows, with an installed wheel instead of the checkout."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

from release.environments import ReleaseFailed, run


def run_the_readme(fresh: Path, examples: Path, work: Path) -> None:
    """Runs `examples/try.sh`, the command with which README begins, in a copy of the examples."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        copy = Path(folder, "examples")
        shutil.copytree(examples, copy, ignore=shutil.ignore_patterns("__pycache__", ".stepwell"))
        output = run(["sh", copy / "try.sh"], on_path=fresh, PORT=str(_free_port()))
    if "completed" not in output:
        raise ReleaseFailed(f"examples/try.sh shows no completed run:\n{output}")


def run_the_first_function(fresh: Path, work: Path) -> None:
    """Makes a function from a template, checks it, and runs it once."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        function = Path(folder, "hello")
        init: list[str | Path] = [
            "init",
            "hello",
            "--path",
            function,
            "--template",
            "python",
            "--event",
            "user/signed.up",
        ]
        for words in (init, ["validate", function], ["run", function]):
            run([fresh / "stepwell", *words], on_path=fresh)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
