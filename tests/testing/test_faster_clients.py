"""What clients of boto3 share in tests (`tests/faster_clients.py`) is nothing that one could change for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
from moto import mock_aws


def session(region: str = "eu-central-1") -> Any:
    return boto3.Session(region_name=region, aws_access_key_id="test", aws_secret_access_key="test")


def test_what_is_registered_with_a_client_is_called_for_that_client_alone() -> None:
    of_session = session()
    one, other = of_session.client("sqs"), of_session.client("sqs")
    called: list[str] = []
    one.meta.events.register("before-call.sqs.*", lambda model, **_: called.append(model.name))
    with mock_aws():
        other.list_queues()
        assert called == []
        one.list_queues()
    assert called == ["ListQueues"]


def test_a_session_adds_methods_to_clients_of_its_own_alone() -> None:
    def add(class_attributes: dict[str, Callable[..., Any]], **_: Any) -> None:
        class_attributes["mine"] = lambda self: self.meta.service_model.service_name

    changed = session()
    changed.events.register("creating-client-class.sqs", add)
    assert changed.client("sqs").mine() == "sqs"
    assert not hasattr(session().client("sqs"), "mine")
    assert hasattr(session().client("s3"), "upload_file")  # boto3 adds it


def test_a_client_asks_the_endpoint_of_its_service_and_region() -> None:
    asked: list[str] = []
    with mock_aws():
        for region in ("eu-central-1", "us-west-2"):
            for service, operation in (("sqs", "list_queues"), ("lambda", "list_functions"), ("events", "list_rules")):
                client = session(region).client(service)
                client.meta.events.register("before-send", lambda request, **_: asked.append(request.url))
                getattr(client, operation)()
                assert asked[-1].startswith(f"https://{service}.{region}.amazonaws.com/")
    assert len(asked) == 6
