"""Clients of boto3 in tests (`tests/faster_clients.py`) share nothing that one client could change for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
from moto import mock_aws


def session(region: str = "eu-central-1") -> Any:
    return boto3.Session(region_name=region, aws_access_key_id="test", aws_secret_access_key="test")


def test_a_handler_is_called_only_for_its_client() -> None:
    of_session = session()
    one, other = of_session.client("sqs"), of_session.client("sqs")
    called: list[str] = []
    one.meta.events.register("before-call.sqs.*", lambda model, **_: called.append(model.name))
    with mock_aws():
        other.list_queues()
        assert called == []
        one.list_queues()
    assert called == ["ListQueues"]


def test_a_session_adds_methods_only_to_its_own_clients() -> None:
    def add(class_attributes: dict[str, Callable[..., Any]], **_: Any) -> None:
        class_attributes["added"] = lambda self: self.meta.service_model.service_name

    changed = session()
    changed.events.register("creating-client-class.sqs", add)
    assert changed.client("sqs").added() == "sqs"
    assert not hasattr(session().client("sqs"), "added")
    assert hasattr(session().client("s3"), "upload_file")  # boto3 adds this method


def test_a_client_uses_the_endpoint_of_its_service_and_region() -> None:
    asked: list[str] = []
    with mock_aws():
        for region in ("eu-central-1", "us-west-2"):
            for service, operation in (("sqs", "list_queues"), ("lambda", "list_functions"), ("events", "list_rules")):
                client = session(region).client(service)
                client.meta.events.register("before-send", lambda request, **_: asked.append(request.url))
                getattr(client, operation)()
                assert asked[-1].startswith(f"https://{service}.{region}.amazonaws.com/")
    assert len(asked) == 6
