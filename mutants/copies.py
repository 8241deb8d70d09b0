"""A copy of the repository, in which tests run while the code has a fault."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
_LEFT_OUT = (".git", ".venv", ".mutants", "node_modules", "cdk.out", "build", "dist", ".*_cache", ".hypothesis")


@contextmanager
def copy_of_the_tree(root: Path = ROOT) -> Iterator[Path]:
    """A folder with the files as they are now, including uncommitted ones. It is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="stepwell-copy-", ignore_cleanup_errors=True) as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(root, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
        for name in (".venv", "node_modules"):
            if (root / name).exists():
                (tree / name).symlink_to(root / name)
        yield tree


@contextmanager
def changed(module: Path, text: str) -> Iterator[None]:
    """Replaces the text of a module within the block."""
    before = module.read_text("utf-8")
    try:
        _write(module, text)
        yield
    finally:
        _write(module, before)


def _write(module: Path, text: str) -> None:
    """Writes a module, and deletes the compiled file: Python notices a change only by the size and full seconds."""
    module.write_text(text, "utf-8")
    for compiled in (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc"):
        compiled.unlink()
