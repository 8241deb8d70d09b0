"""AWS clients for commands that change an account.

They retry more often, and wait longer, than the clients in the Lambdas: a person is waiting, not an event.
"""

from __future__ import annotations

from typing import Any


class Account:
    """Thread-safe. `session`: a boto3 session; the default one if it is None."""

    def __init__(self, session: Any = None) -> None:
        import boto3
        from botocore.config import Config

        config = Config(
            retries={
                "mode": "adaptive",
                "total_max_attempts": 10,
            },  # Lambda's control plane allows 15 requests a second
            connect_timeout=5,
            read_timeout=120,
            max_pool_connections=32,
        )
        make = session.client if session is not None else boto3.client
        self.lambda_: Any = make("lambda", config=config)
        self.iam: Any = make("iam", config=config)
        self.s3: Any = make("s3", config=config)
        self.ssm: Any = make("ssm", config=config)
        self.logs: Any = make("logs", config=config)
        self.ecs: Any = make("ecs", config=config)
        self.ecr: Any = make("ecr", config=config)
        self.sts: Any = make("sts", config=config)
        self.cloudformation: Any = make("cloudformation", config=config)

    def author(self) -> str:
        """The identity that makes the requests, for the history of versions."""
        arn: str = self.sts.get_caller_identity()["Arn"]
        return arn.rpartition(":")[2]
