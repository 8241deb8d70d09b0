"""Writes the lock files: exact versions with hashes, for what is deployed and for CI. `make lock` runs it.

Versions that a lock file has already are kept as long as they fit; `--upgrade` takes the newest of all,
`--upgrade-package NAME` of one. The lower bounds of what users install are in `pyproject.toml`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAMBDAS_PYTHON = "3.13"
RUNTIME_HAS = ("botocore", "jmespath", "python-dateutil", "six", "urllib3")
"""Packages that the layer `tracer` needs, and that Lambda's own runtime has."""


@dataclass(frozen=True, slots=True)
class Lock:
    path: str
    sources: tuple[str, ...]
    python: str = "3.11"  # the oldest that is supported
    options: tuple[str, ...] = ()

    def command(self) -> list[str]:
        fixed = ["--quiet", "--universal", "--generate-hashes", "--no-annotate", "--no-emit-index-url"]
        header = ["--custom-compile-command", "make lock"]
        versions = ["--python-version", self.python]
        return ["pip", "compile", *fixed, *header, *versions, *self.options, "--output-file", self.path, *self.sources]


def _layer(name: str, *options: str) -> Lock:
    return Lock(f"layers/engine/{name}.txt", (f"layers/engine/{name}.in",), LAMBDAS_PYTHON, options)


LOCKS = (
    _layer("light"),
    _layer("expressions"),
    _layer("openapi"),
    _layer("types"),
    _layer("tracer", *(f"--no-emit-package={name}" for name in RUNTIME_HAS)),
    Lock("locks/dev.txt", ("pyproject.toml", "locks/build.in"), options=("--extra", "dev")),
    Lock("locks/release.txt", ("locks/release.in",)),
    Lock("rehearsal/requirements.txt", ("rehearsal/requirements.in",)),
)


def main(options: list[str]) -> None:
    environment = {**os.environ, "UV_DEFAULT_INDEX": "https://pypi.org/simple", "UV_NO_CONFIG": "1"}
    for lock in LOCKS:
        print(lock.path)
        subprocess.run([sys.executable, "-m", "uv", *lock.command(), *options], cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
