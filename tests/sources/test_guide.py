"""The example of sources runs with a real Redis, and every source of the guide is valid."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from stepwell.core.sources.definition import parse_source, schema
from stepwell.core.sources.types import TYPES
from tests.servers import api, dev, eventually

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "sources.md").read_text("utf-8")
RECORD = re.findall(r"^redis-cli xadd orders '\*' body '(.*)'$", GUIDE, re.MULTILINE)[0]
SOURCES = [text for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL) if text.startswith("type:")]


def test_the_example_starts_its_function(tmp_path: Path, redis_port: int) -> None:
    redis = pytest.importorskip("redis")
    shutil.copytree(ROOT / "examples" / "sources", tmp_path / "sources")
    file = tmp_path / "sources" / "sources" / "orders.yaml"
    file.write_text(file.read_text().replace("6379", str(redis_port)))
    with dev(tmp_path / "sources", tmp_path / "db") as server, api(server) as http:
        entry = redis.Redis(port=redis_port, decode_responses=True).xadd("orders", {"body": RECORD})
        event_id = f"source:orders:redis/orders/{entry}"
        eventually(lambda: http.http.get(f"/v1/events/{event_id}").status_code == 200)
        assert http.ended(event_id)["output"] == {"reserve": {"order": 7, "reserved": 1}}
        assert http.get(f"/v1/events/{event_id}")["user"] == {"external_id": "ada"}


def test_the_first_source_of_the_guide_is_that_of_the_example() -> None:
    example = yaml.safe_load((ROOT / "examples" / "sources" / "sources" / "orders.yaml").read_text())
    guide = yaml.safe_load(SOURCES[0])
    assert {**guide, "url": example["url"]} == example


def test_the_guide_has_a_valid_source_of_each_type() -> None:
    from jsonschema import Draft202012Validator

    assert {yaml.safe_load(text)["type"] for text in SOURCES} >= set(TYPES) - {"celery"}
    for text in SOURCES:
        raw = yaml.safe_load(text)
        parse_source(raw, "orders")
        Draft202012Validator(schema()).validate(raw)
