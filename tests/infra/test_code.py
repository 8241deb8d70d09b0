"""The deployed code is complete: the engine's Lambdas start with only their layers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra.code import NOT_IN_LAMBDAS, ROOT, TRACER
from layers.engine.build import NAMES, Machine, layer, size_mb
from stepwell.aws.resources import VARIABLE, Resources
from stepwell.aws.topology import FUNCTIONS, Function
from tests.infra.conftest import Synth

MACHINE = Machine("x86_64", f"{sys.version_info.major}.{sys.version_info.minor}")
RESOURCES = Resources("dev", "us-east-1", "1", "t", "b", "q", "qa", "o", "oa", "s3", "h")

ISOLATED = """
import importlib, sys
code, handler, *layers = sys.argv[1:]
runtime = {runtime!r}

class OnlyTheRuntimeHasIt:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in runtime:
            from importlib.machinery import PathFinder
            return PathFinder.find_spec(name, path or [{site!r}], target)

sys.path[:0] = [code, *(layer + "/python" for layer in layers)]
sys.meta_path.append(OnlyTheRuntimeHasIt())
handler = importlib.import_module(handler).handler
"""
LOADED = 'print(*sorted({name.partition(".")[0] for name in sys.modules}))'
ASK_FOR_DOCUMENT = """
import json
http = {"method": "GET", "path": "/openapi.json", "sourceIp": "192.0.2.1", "protocol": "HTTP/1.1", "userAgent": ""}
context = {"http": http, "stage": "$default", "requestId": "1", "timeEpoch": 0}
request = {"version": "2.0", "routeKey": "$default", "rawPath": "/openapi.json", "rawQueryString": "", "headers": {}}
print(json.dumps(handler({**request, "requestContext": context, "isBase64Encoded": False}, None)))
"""
RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")


def code_of(synth: Synth) -> Path:
    """The folder with the engine's code in the cloud assembly."""
    (code,) = [folder for folder in synth.folder.glob("asset.*") if (folder / "lambdas").is_dir()]
    return code


def on_lambda(synth: Synth, function: Function, script: str) -> str:
    """The output of a script in a process with only the Lambda's code, layers and runtime."""
    layers = [str(layer(name, MACHINE)) for name in function.layers]
    site = next(path for path in sys.path if path.endswith("site-packages"))
    prepare = ISOLATED.format(runtime=RUNTIME, site=site)
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-B",
            "-c",
            prepare + script,
            str(code_of(synth)),
            f"lambdas.{function.name}",
            *layers,
        ],
        env={VARIABLE: RESOURCES.to_json(), "AWS_DEFAULT_REGION": "us-east-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the layers have wheels for Linux")


@linux_only
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda value: str(value.name))
def test_a_lambda_starts_with_its_layers_alone(synth: Synth, function: Function) -> None:
    loaded = on_lambda(synth, function, LOADED).split()
    assert "stepwell" in loaded
    assert "pydantic" not in loaded
    assert ("cel_expr_python" in loaded) <= ("expressions" in function.layers and function.name != "ingest"), (
        "few need it there"
    )


@linux_only
def test_the_tracing_layer_needs_only_the_runtime(synth: Synth) -> None:
    ingest = next(function for function in FUNCTIONS if function.name == "ingest")
    traced = replace(ingest, layers=(*ingest.layers, TRACER))
    assert "aws_xray_sdk" in on_lambda(synth, traced, "import aws_xray_sdk.core;" + LOADED).split()
    assert "aws_xray_sdk" not in on_lambda(synth, ingest, LOADED).split()


@linux_only
def test_the_api_can_describe_itself(synth: Synth) -> None:
    (api,) = [function for function in FUNCTIONS if function.name == "api"]
    answer = json.loads(on_lambda(synth, api, ASK_FOR_DOCUMENT))
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["openapi"].startswith("3.1")


def test_there_is_a_function_for_every_file_in_lambdas() -> None:
    assert {function.name for function in FUNCTIONS} == {file.stem for file in (ROOT / "lambdas").glob("[!_]*.py")}


def test_only_what_lambdas_need_is_deployed(synth: Synth) -> None:
    code = code_of(synth)
    assert {path.name for path in code.iterdir()} == {"lambdas", "stepwell"}
    assert not {path.name for path in (code / "stepwell").iterdir()} & set(NOT_IN_LAMBDAS)
    assert size_mb(code) < 2.5


def test_layers_fit_well_into_a_lambda() -> None:
    built = {name: layer(name, Machine()) for name in NAMES}
    assert size_mb(built["light"]) < 10
    assert size_mb(built["expressions"]) < 18
    assert sum(map(size_mb, built.values())) < 47
    for folder in built.values():
        native = list(folder.rglob("*.so"))
        assert all("313" in file.name or "abi3" in file.name for file in native)
        assert all(file.read_bytes()[18:20] == b"\xb7\0" for file in native)  # ELF's e_machine: aarch64
        assert not (folder / "python" / "boto3").exists()


def test_a_layer_is_built_once() -> None:
    first = layer("light", Machine())
    made = first.stat().st_mtime_ns
    assert (layer("light", Machine()), first.stat().st_mtime_ns) == (first, made)


def test_npm_s_lock_names_no_registry() -> None:
    assert "http" not in (ROOT / "package-lock.json").read_text()
    assert json.loads((ROOT / "package.json").read_text())["devDependencies"]["aws-cdk"].startswith("^2.")
