"""Container images of steps: reading from registries, and building with podman or docker into a real registry."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.aws.deploy.images import Image, ImageError, built_image, named_image
from stepwell.aws.deploy.oci import Reference
from stepwell.project.code import StepCode, read_code
from stepwell.testing.ecs.registry import Registry, digest_of
from tests.aws.conftest import RESOURCES
from tests.aws.containers import Images
from tests.containers import BUSYBOX

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.close()


def _put(registry: Registry, version: str, architecture: str = "amd64", **config: Any) -> str:
    """Pushes an image without layers. Returns the digest."""
    content = orjson.dumps({"architecture": architecture, "os": "linux", "config": config})
    registry.blobs[digest_of(content)] = content
    manifest = {"schemaVersion": 2, "config": {"digest": digest_of(content)}, "layers": []}
    return registry.put_manifest("team/step", version, MANIFEST, orjson.dumps(manifest))


def _put_index(registry: Registry, version: str, architectures: list[str]) -> None:
    manifests = [
        {
            "digest": _put(registry, f"{version}-{architecture}", architecture, Cmd=[architecture]),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture in architectures
    ]
    registry.put_manifest("team/step", version, INDEX, orjson.dumps({"schemaVersion": 2, "manifests": manifests}))


# --- existing images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("python", ("registry-1.docker.io", "library/python", "latest")),
        ("python:3.13", ("registry-1.docker.io", "library/python", "3.13")),
        ("team/step:1", ("registry-1.docker.io", "team/step", "1")),
        ("docker.io/team/step:1", ("registry-1.docker.io", "team/step", "1")),
        ("ghcr.io/team/step", ("ghcr.io", "team/step", "latest")),
        ("localhost:5000/step", ("localhost:5000", "step", "latest")),
        ("ghcr.io/team/step:1@sha256:ab", ("ghcr.io", "team/step", "sha256:ab")),
        (
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/x:1",
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "x", "1"),
        ),
    ],
)
def test_an_images_name_is_read_as_docker_reads_it(text: str, reference: tuple[str, str, str]) -> None:
    assert Reference.parse(text) == Reference(*reference)


def test_an_image_runs_its_entrypoint_with_its_command(registry: Registry) -> None:
    _put(registry, "1", "arm64", Entrypoint=["python"], Cmd=["main.py"])
    name = f"{registry.host}/team/step:1"
    assert named_image(name, None) == Image(name, ("python", "main.py"), "arm64")


def test_an_entrypoint_of_the_step_replaces_both(registry: Registry) -> None:
    _put(registry, "1", Entrypoint=["python"], Cmd=["main.py"])
    name = f"{registry.host}/team/step:1"
    assert named_image(name, ("/bin/other",)) == Image(name, ("/bin/other",), "x86_64")


def test_a_registry_that_gives_tokens_to_everybody_is_read() -> None:
    registry = Registry(wants_token=True)
    _put(registry, "1", Cmd=["run"])
    assert named_image(f"{registry.host}/team/step:1", None).command == ("run",)
    registry.close()


@pytest.mark.parametrize(("architectures", "chosen"), [(["arm64", "amd64"], "x86_64"), (["s390x", "arm64"], "arm64")])
def test_of_an_image_for_many_machines_one_is_chosen_that_fargate_has(
    registry: Registry, architectures: list[str], chosen: str
) -> None:
    _put_index(registry, "1", architectures)
    assert named_image(f"{registry.host}/team/step:1", None).architecture == chosen


def test_an_image_that_is_not_there_is_refused(registry: Registry) -> None:
    with pytest.raises(ImageError, match=r"there is no image .*; push it to its registry, or correct the name"):
        named_image(f"{registry.host}/team/step:2", None)


def test_an_image_that_runs_nothing_is_refused_with_the_cure(registry: Registry) -> None:
    _put(registry, "1")
    with pytest.raises(ImageError, match="neither ENTRYPOINT nor CMD; set `entrypoint`"):
        named_image(f"{registry.host}/team/step:1", None)


def test_an_image_that_cannot_be_read_needs_an_entrypoint(registry: Registry) -> None:
    name = "127.0.0.1:1/team/step:1"
    with pytest.raises(ImageError, match=r"does not answer.*set `entrypoint`"):
        named_image(name, None)
    assert named_image(name, ("/run",)) == Image(name, ("/run",), "x86_64")


def test_an_image_for_other_machines_is_refused(registry: Registry) -> None:
    _put(registry, "1", "s390x", Cmd=["x"])
    _put_index(registry, "2", ["s390x", "ppc64le"])
    for version in ("1", "2"):
        with pytest.raises(ImageError, match="is for s390x; build it for x86_64 or arm64"):
            named_image(f"{registry.host}/team/step:{version}", ("/run",))


# --- images that push builds -----------------------------------------------------------------------------------------


def _code(folder: Path, command: str) -> StepCode:
    folder.mkdir(exist_ok=True)
    shutil.copy(BUSYBOX, folder / "busybox")
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY busybox /bin/busybox\n{command}\n")
    return read_code(folder, folder)


def test_a_dockerfile_is_built_and_pushed_once(images: Images, registry: Registry, tmp_path: Path) -> None:
    repository = f"{registry.host}/stepwell"
    resources = replace(RESOURCES, repository=repository)
    code = _code(tmp_path / "step", 'ENTRYPOINT ["/bin/busybox", "sh"]\nCMD ["/main.sh"]')
    lines: list[str] = []
    built = built_image(resources, code, None, lines.append)
    assert (built.reference, built.command) == (f"{repository}:{code.hash}", ("/bin/busybox", "sh", "/main.sh"))
    assert registry.pushes == 1
    assert lines
    assert built_image(resources, code, None, lines.append) == built
    assert registry.pushes == 1
    subprocess.run([images.engine, "rmi", built.reference], check=True, capture_output=True)


def test_a_build_that_fails_says_why(images: Images, registry: Registry, tmp_path: Path) -> None:
    code = _code(tmp_path / "step", "COPY nothing /")
    with pytest.raises(ImageError, match=r"build failed: .*nothing"):
        built_image(replace(RESOURCES, repository=f"{registry.host}/stepwell"), code, None, lambda line: None)


def test_an_image_that_is_there_needs_no_engine(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    code = read_code(tmp_path, tmp_path)
    _put(registry, code.hash, Cmd=["run"])
    monkeypatch.setenv("PATH", "")
    resources = replace(RESOURCES, repository=f"{registry.host}/team/step")
    assert built_image(resources, code, None, print).command == ("run",)


def test_building_without_an_engine_names_the_cure(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ImageError, match="install and start docker or podman"):
        built_image(
            replace(RESOURCES, repository=f"{registry.host}/x"), read_code(tmp_path, tmp_path), None, lambda line: None
        )
