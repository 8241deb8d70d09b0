"""Builds the layers of the engine's Lambdas from wheels, without Docker, and caches them by their content.

A layer contains exactly the versions of its lock file. Nothing is resolved while it is built, and pip checks the hash
of each wheel. `python -m layers.engine.build` builds all layers and prints their sizes; `make lock` writes the locks.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stepwell.aws.deploy import shared_libraries
from stepwell.aws.deploy.adapter import locked
from stepwell.aws.deploy.shared_libraries import without_symbols

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "layers"
NAMES = ("light", "expressions", "openapi", "types", "tracer")
UNUSED = ("**/tests", "**/__pycache__", "**/*.pyi", "**/py.typed", "*.dist-info/RECORD", "bin")
_EXTENSIONS = tuple(f"cel_expr_python/ext/ext_{name}*" for name in ("bindings", "math", "optional", "proto", "strings"))
UNUSED_OF = {"expressions": ("bazel-project", *_EXTENSIONS)}
"""Files that no Lambda reads. Most extensions of CEL, with 5 to 7 MB each, are not used; `ext_encoders` is."""


class BuildFailed(Exception):
    """A layer could not be built. The message contains pip's output."""


@dataclass(frozen=True)
class Machine:
    """The platform that the Lambdas run on."""

    architecture: str = "arm64"  # arm64 or x86_64, as Lambda calls them
    python: str = "3.13"

    @property
    def wheels(self) -> list[str]:
        """pip's options for wheels of this platform. From Python 3.12 on, Lambda has glibc 2.34 (Amazon Linux 2023)."""
        cpu = {"arm64": "aarch64", "x86_64": "x86_64"}[self.architecture]
        tags = [f"manylinux_2_28_{cpu}", f"manylinux_2_17_{cpu}", f"manylinux2014_{cpu}"]
        options = [option for tag in tags for option in ("--platform", tag)]
        return [*options, "--only-binary=:all:", "--implementation", "cp", "--python-version", self.python]


def layer(name: str, machine: Machine) -> Path:
    """The folder of a layer, which contains `python/`. If it does not exist, one process builds it, and others wait.

    Raises BuildFailed.
    """
    lock = HERE / f"{name}.txt"
    folder = BUILD / f"{name}-{_key(lock, machine)}"
    if folder.is_dir():
        return folder
    BUILD.mkdir(parents=True, exist_ok=True)
    with locked(BUILD / f".{folder.name}.lock"):
        if not folder.is_dir():
            _build(name, lock, machine, folder)
    return folder


def _build(name: str, lock: Path, machine: Machine, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".new-") as new:
        target = Path(new, "layer", "python")
        exactly = ["--require-hashes", "--no-deps", "--no-compile", "-r", str(lock)]
        _pip("install", *exactly, "--target", str(target), *machine.wheels)
        _strip(target, (*UNUSED, *UNUSED_OF.get(name, ())))
        for library in target.rglob("*.so*"):
            library.write_bytes(without_symbols(library.read_bytes()))
        target.parent.replace(folder)


def size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _key(lock: Path, machine: Machine) -> str:
    code = [Path(file).read_bytes() for file in (__file__, shared_libraries.__file__)]
    inputs = [lock.read_bytes(), *code, machine.architecture.encode(), machine.python.encode()]
    return hashlib.sha256(b"\0".join(inputs)).hexdigest()[:16]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"the engine's layer cannot be built: `{' '.join(command)}`:\n{done.stderr.strip()}")


def _strip(folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for found in list(folder.glob(pattern)):
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)


def main() -> None:
    for name in NAMES:
        folder = layer(name, Machine())
        print(f"{size_mb(folder):6.1f} MB  {folder}")


if __name__ == "__main__":
    main()
