"""The package of a WebAssembly step's Lambda."""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import orjson
import pytest

from stepwell.aws.deploy import modules as packages
from stepwell.aws.deploy.packaging import StepLambda
from stepwell.aws.deploy.runtimes import PackagingError
from stepwell.aws.deploy.shared_libraries import without_symbols
from stepwell.core.compile import compile_plan
from stepwell.project.load import load
from tests.wasm import modules

pytest.importorskip("wasmtime", reason="wasmtime is not installed")

OWN = "arm64" if platform.machine() == "aarch64" else "x86_64"


def step_lambda(folder: Path, **runtime: object) -> StepLambda:
    (folder / "step").mkdir(parents=True, exist_ok=True)
    (folder / "step/main.wasm").write_bytes(modules.prints(b"1"))
    step = {"path": "file://step", "runtime": {"type": "wasm", **runtime}, "env": {"AB": "1"}}
    definition = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": step}}
    (folder / "stepwell.json").write_bytes(orjson.dumps(definition))
    function = load(folder)
    (planned,) = compile_plan(function.normalised(), 0).steps
    return packages.module_lambda("f", planned, function.steps["a"])


def test_the_lambda_has_room_for_the_module_and_its_runtime(tmp_path: Path) -> None:
    made = step_lambda(tmp_path, memory=64, fuel=1000)
    assert (made.runtime, made.architecture, made.memory) == ("python3.13", "x86_64", 320)
    variables = made.variables("dev")
    assert orjson.loads(variables["STEPWELL_MODULE"]) == {"module": "main.wasm", "memory": 64 * 1024**2, "fuel": 1000}
    assert variables["STEPWELL_DECLARED"] == "AB"
    assert variables["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/bootstrap"


def test_settings_that_change_the_compiled_module_change_the_package(tmp_path: Path) -> None:
    settings = ({}, {"fuel": 5}, {"architecture": "arm64"}, {"fuel": 6}, {"memory": 5})
    made = [step_lambda(tmp_path / str(i), **runtime) for i, runtime in enumerate(settings)]
    assert len({item.hash for item in made}) == 5
    plain, with_fuel, on_arm, other_fuel, other_memory = (item.code_key for item in made)
    assert len({plain, with_fuel, on_arm}) == 3
    assert (other_fuel, other_memory) == (with_fuel, plain)


def test_other_scripts_make_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update of Stepwell replaces the scripts beside a module, though the module is the same."""
    before = step_lambda(tmp_path / "step").code_key
    updated = tmp_path / "runners"
    shutil.copytree(packages._RUNNERS, updated)
    (updated / "wasm_worker.py").write_text("# other")
    monkeypatch.setattr(packages, "_RUNNERS", updated)
    assert step_lambda(tmp_path / "step").code_key != before


def test_the_package_contains_wasmtime_and_the_compiled_module(tmp_path: Path) -> None:
    to = io.BytesIO()
    packages.write_package(step_lambda(tmp_path, architecture=OWN), to)
    with zipfile.ZipFile(to) as package:
        names = set(package.namelist())
        assert package.read("step/main.wasm") == modules.prints(b"1")
        assert package.read("wasm/module.cwasm")[:4] == b"\x7fELF"
    assert {"wasm/wasm_lambda_worker.py", "wasm/wasm_worker.py", "wasm/python_worker.py"} <= names
    assert f"wasm/wasmtime/linux-{platform.machine()}/_libwasmtime.so" in names


def test_libraries_are_packed_without_their_symbols(tmp_path: Path) -> None:
    to = io.BytesIO()
    packages.write_package(step_lambda(tmp_path, architecture=OWN), to)
    with zipfile.ZipFile(to) as package:
        package.extractall(tmp_path, [name for name in package.namelist() if name.startswith("wasm/wasmtime/")])
    (library,) = tmp_path.glob("wasm/wasmtime/*/_libwasmtime.so")
    assert without_symbols(library.read_bytes()) == library.read_bytes()
    program = "import wasmtime as w; print(w.__file__, w.Module(w.Engine(), '(module)').exports)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "wasm", capture_output=True, check=True)
    assert done.stdout.decode().split() == [str(tmp_path / "wasm/wasmtime/__init__.py"), "[]"]


def test_other_files_than_libraries_stay_as_they_are() -> None:
    assert without_symbols(b"import ctypes") == b"import ctypes"


def test_without_wasmtime_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise packages.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.importlib.metadata, "version", missing)
    with pytest.raises(PackagingError, match=r"run: pip install 'stepwell\[wasm\]'"):
        step_lambda(tmp_path)
