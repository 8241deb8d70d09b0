"""The wheel works without the checkout that it was made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("stepwell", "lambdas", "layers/runtime/adapter")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The wheel's content, and what setuptools said."""
    folder = tmp_path_factory.mktemp("package")
    for name in SOURCES:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=without)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / "source")
    command = "pip wheel --verbose --no-deps --wheel-dir wheels ./source"
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=folder, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    (wheel,) = (folder / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed", said


def test_it_is_built_without_a_warning(built: tuple[Path, str]) -> None:
    assert "Warning" not in built[1]  # as in SetuptoolsDeprecationWarning


def test_it_has_all_files_of_the_package_but_tests(built: tuple[Path, str]) -> None:
    package = ROOT / "stepwell"
    files = {Path(folder, name) for folder, _, names in os.walk(package, followlinks=True) for name in names}
    wanted = {str(file.relative_to(ROOT)) for file in files if file.suffix != ".pyc" and "_test." not in file.name}
    found = {str(file.relative_to(built[0])) for file in (built[0] / "stepwell").rglob("*") if file.is_file()}
    assert found == wanted


@pytest.mark.timeout(180)
def test_users_can_test_their_functions_with_it(built: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "testing", tmp_path / "function")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "left_alone"],
        cwd=tmp_path / "function",
        env={**os.environ, "PYTHONPATH": str(built[0])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
