"""A fake Parameter Store for the adapter. It checks the signature of each request with botocore."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from unittest import mock

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.adapter.lambda_service import Handler, Server


def is_signed(request: Handler, body: bytes, service: str, region: str = "eu-central-1") -> bool:
    """Whether botocore computes the same signature with the same key, time and headers."""
    credentials = Credentials("AKIDEXAMPLE", "secret", "session")
    given = request.headers["Authorization"]
    names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: request.headers[name] for name in names if name not in ("host", "x-amz-date")}
    url = f"http://{request.headers['Host']}{request.path}"
    again = AWSRequest(request.command, url, data=body, headers=headers)
    stamp = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    with mock.patch("botocore.auth.get_current_datetime", return_value=stamp):
        signer = S3SigV4Auth if service == "s3" else SigV4Auth
        signer(credentials, service, region).add_auth(again)
    return bool(again.headers["Authorization"] == given)


class ParameterStore:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.refusals: list[tuple[int, bytes]] = []  # responses to the next requests
        store = self

        class Requests(Handler):
            def do_POST(self) -> None:  # noqa: N802
                body = self.body()
                assert self.headers["X-Amz-Target"] == "AmazonSSM.GetParameters"
                if not is_signed(self, body, "ssm"):
                    return self.answer(400, b'{"__type": "InvalidSignatureException"}')
                if store.refusals:
                    return self.answer(*store.refusals.pop(0))
                asked = json.loads(body)
                store.requests.append(asked)
                names = asked["Names"]
                if len(names) > 10:
                    return self.answer(400, b'{"__type": "ValidationException"}')
                found = [{"Name": name, "Value": store.values[name]} for name in names if name in store.values]
                return self.answer(200, json.dumps({"Parameters": found}).encode())

        self.server = Server(Requests)
