"""Tokens of attempts: who can show one was given the attempt's input, so that its outcome may be believed. Nobody is
given those of ticks, wakes and requests to cancel runs: only the engine can show one.

HMAC-SHA256 (RFC 2104) of run, step and attempt with a secret that is made once for each environment.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.table import NEW, SECRET


class Tokens:
    def __init__(self, resources: Resources) -> None:
        self._table = resources.table
        self._secret: bytes | None = None

    @property
    def secret(self) -> bytes:
        if self._secret is None:
            self._secret = self._read() or self._make()
        return self._secret

    def of(self, run_id: str, step_id: str, attempt: int) -> str:
        text = f"{run_id}/{step_id}/{attempt}".encode()
        return hmac.digest(self.secret, text, hashlib.sha256)[:16].hex()

    def is_valid(self, token: object, run_id: str, step_id: str, attempt: int) -> bool:
        return isinstance(token, str) and hmac.compare_digest(
            token.encode(), self.of(run_id, step_id, attempt).encode()
        )

    def _read(self) -> bytes | None:
        answer = client("dynamodb").get_item(TableName=self._table, Key=SECRET, ConsistentRead=True)
        secret: bytes | None = answer["Item"]["k"]["B"] if "Item" in answer else None
        return secret

    def _make(self) -> bytes:
        db = client("dynamodb")
        secret = secrets.token_bytes(32)
        try:
            db.put_item(TableName=self._table, Item={**SECRET, "k": {"B": secret}}, ConditionExpression=NEW)
        except db.exceptions.ConditionalCheckFailedException:  # another Lambda was faster
            return self._read() or secret
        return secret
