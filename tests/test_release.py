"""A release is refused if its version, its changelog or its wheel is not what it should be."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from release.checks import check_tree, check_version, check_wheel
from release.environments import ReleaseFailed, run

ROOT = Path(__file__).parents[1]
METADATA = "Metadata-Version: 2.4\nName: stepwell\nVersion: {version}\nLicense-Expression: {licence}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small checkout: one module, a licence and a changelog."""
    root = tmp_path / "root"
    (root / "stepwell").mkdir(parents=True)
    (root / "stepwell/__init__.py").write_text('__version__ = "1.2.3"\n')
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2026-11-30)\n\n## 1.2.2 (2026-10-01)\n")
    (root / "LICENSE").write_text("free\n")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", root, *words], check=True)
    return root


def wheel(root: Path, version: str = "1.2.3", licence: str = "Apache-2.0", *more: str) -> Path:
    path = root.parent / f"stepwell-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(root / "stepwell/__init__.py", "stepwell/__init__.py")
        archive.writestr("stepwell-1.2.3.dist-info/METADATA", METADATA.format(version=version, licence=licence))
        archive.write(root / "LICENSE", "stepwell-1.2.3.dist-info/licenses/LICENSE")
        for name in ("arm64", "x86_64"):
            archive.writestr(f"stepwell/aws/deploy/adapter_layers/{name}.zip", b"")
        for name in more:
            archive.writestr(name, b"")
    return path


def test_the_version_is_that_of_the_newest_entry_of_the_changelog(root: Path) -> None:
    assert check_version(root) == "1.2.3"


@pytest.mark.parametrize("changelog", ["## 1.2.2 (2026-10-01)\n", "## 1.2.3 (not released)\n", ""])
def test_a_version_without_its_entry_is_not_released(root: Path, changelog: str) -> None:
    (root / "CHANGELOG.md").write_text(changelog)
    with pytest.raises(ReleaseFailed, match=r"CHANGELOG\.md"):
        check_version(root)


def test_this_package_could_be_released() -> None:
    assert check_version(ROOT)


def test_changes_that_are_not_committed_are_not_released(root: Path) -> None:
    check_tree(root)
    (root / "stepwell/new.py").touch()
    with pytest.raises(ReleaseFailed, match=r"stepwell/new\.py"):
        check_tree(root)


def test_a_wheel_with_each_file_of_the_package_passes(root: Path) -> None:
    check_wheel(wheel(root), "1.2.3", root)


def test_a_wheel_that_lacks_a_file_or_has_another_is_refused(root: Path) -> None:
    with pytest.raises(ReleaseFailed, match=r"has \['tests/test_a\.py'\] besides"):
        check_wheel(wheel(root, "1.2.3", "Apache-2.0", "tests/test_a.py"), "1.2.3", root)
    (root / "stepwell/more.py").touch()
    run(["git", "-C", root, "add", "-A"])
    with pytest.raises(ReleaseFailed, match=r"lacks \['stepwell/more\.py'\]"):
        check_wheel(wheel(root), "1.2.3", root)


@pytest.mark.parametrize(("version", "licence"), [("1.2.4", "Apache-2.0"), ("1.2.3", "MIT")])
def test_a_wheel_of_another_version_or_licence_is_refused(root: Path, version: str, licence: str) -> None:
    with pytest.raises(ReleaseFailed, match=f"{version} and {licence}"):
        check_wheel(wheel(root, version, licence), "1.2.3", root)


def test_a_wheel_with_another_text_of_the_licence_is_refused(root: Path) -> None:
    made = wheel(root)
    (root / "LICENSE").write_text("not free\n")
    with pytest.raises(ReleaseFailed, match="licence"):
        check_wheel(made, "1.2.3", root)


def test_a_program_that_fails_is_named_with_what_it_printed() -> None:
    with pytest.raises(ReleaseFailed, match="`sh -c echo oh; exit 3` ended with 3:\noh"):
        run(["sh", "-c", "echo oh; exit 3"])


def test_programs_do_not_see_the_pythonpath_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    assert run(["sh", "-c", "echo ${PYTHONPATH-none} $MORE"], MORE="more") == "none more\n"
