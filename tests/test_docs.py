"""The pages of docs/: the generated ones match the code, links lead somewhere, and the site builds."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import commands

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOT_OURS = {"node_modules", "build", "cdk.out", "fixtures", "templates"}  # as hidden folders are


def markdown_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.startswith(".")]
        yield from (Path(folder, name) for name in files if name.endswith(".md"))


PAGES = sorted(markdown_files())


@pytest.fixture(scope="module", autouse=True)
def modules() -> Iterator[None]:
    """The modules of docs/generate and docs/site can be imported."""
    added = [str(DOCS / "generate"), str(DOCS / "site")]
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)


def test_the_generated_pages_are_current() -> None:
    from pages import pages

    stale = [name for name, text in pages().items() if (DOCS / name).read_text("utf-8") != text]
    assert stale == [], "run `make docs`"


def test_the_picture_of_a_run_is_current() -> None:
    from run_picture import EVENT, EXAMPLE, FILE, THEN, picture

    done = commands.run(["run", str(EXAMPLE), "--json", "--event", json.dumps(EVENT), "--then", json.dumps(THEN)])
    assert picture(json.loads(done.stdout)) == FILE.read_text("utf-8"), "run `python docs/generate/run_picture.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    from links import anchors, is_external, targets

    dead = []
    for line, target in targets(page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        if is_external(target):
            continue
        file = Path(os.path.normpath(page.parent / name)) if name else page
        file = file / "README.md" if (file / "README.md").is_file() else file
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            dead.append(f"{page.relative_to(ROOT)}:{line}: {target}")
    assert dead == []


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), yaml.BaseLoader)
    listed = set(_pages(settings["nav"]))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    decisions = {name for name in written if name.startswith("internals/adr/0")}  # their list links to them
    assert listed == written - decisions, "list the pages under `nav` in mkdocs.yml"


def _pages(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for item in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from _pages(item)


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra `docs` is not installed")
def test_the_site_builds_and_loads_nothing_from_another_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(DOCS / "site"), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for page in (tmp_path / "site").rglob("*.html"):
        for element in page.read_text("utf-8").split("<")[1:]:
            loads = element.startswith(("link", "script", "img", "iframe"))
            assert not (loads and "://" in element.partition(">")[0]), (page.name, element[:200])
