"""The statements that your KMS key's policy needs, so that AWS services can use an environment's encrypted resources.

`python -m infra.key_policy ARN` prints them. With `--check` it prints those that the key's policy lacks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from infra.setting_fields import BadSetting
from infra.settings import Settings

Json = dict[str, Any]


def statements(key: str, account: str | None = None) -> list[Json]:
    """The statements that a key's policy needs, so that AWS services can use resources encrypted with the key.

    `key`: the key's ARN. `account`: the environment's account, if it is not the key's. Sources:
    - EventBridge sends to encrypted queues. A condition on the source is not documented for queues, and documented not
      to work for topics. So the statement is limited to the queues of the account.
      https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
    - CloudWatch alarms publish to an encrypted topic:
      https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
    - CloudWatch Logs encrypts log groups:
      https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    partition, region, owner = _parts(key)
    account = account or owner
    here = f"{region}:{account}"
    use = ["kms:Decrypt", "kms:GenerateDataKey*"]
    queues = {"ArnLike": {"kms:EncryptionContext:aws:sqs:arn": f"arn:{partition}:sqs:{here}:*"}}
    alarms = {"StringEquals": {"aws:SourceAccount": account}}
    logs = {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:{partition}:logs:{here}:*"}}
    encrypt = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
    return [
        _statement("StepwellEvents", "events.amazonaws.com", use, queues),
        _statement("StepwellAlarms", "cloudwatch.amazonaws.com", use, alarms),
        _statement("StepwellLogs", f"logs.{region}.amazonaws.com", encrypt, logs),
    ]


def missing(policy: Json, wanted: Iterable[Json]) -> list[Json]:
    """The wanted statements that a key's policy lacks. Statements must be equal, except for `Sid`."""
    has = [_plain(item) for item in policy["Statement"]]
    return [item for item in wanted if _plain(item) not in has]


def _statement(sid: str, service: str, actions: Sequence[str], condition: Json) -> Json:
    principal = {"Service": service}
    allowed = {"Sid": sid, "Effect": "Allow", "Principal": principal, "Action": list(actions)}
    return {**allowed, "Resource": "*", "Condition": condition}


def _plain(statement: Json) -> Json:
    action = statement["Action"]
    actions = sorted([action] if isinstance(action, str) else action)
    return {name: value for name, value in statement.items() if name != "Sid"} | {"Action": actions}


def _parts(key: str) -> tuple[str, str, str]:
    Settings(kms_key=key)  # raises BadSetting unless it is the ARN of a key
    _, partition, _, region, account, _ = key.split(":")
    return partition, region, account


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.key_policy", description=main.__doc__)
    parser.add_argument("key", help="ARN of the key")
    parser.add_argument("--account", help="the environment's account, if it is not the key's")
    parser.add_argument("--check", action="store_true", help="print missing statements; needs kms:GetKeyPolicy")
    options = parser.parse_args(arguments)
    try:
        wanted = statements(options.key, options.account)
    except BadSetting as problem:
        sys.exit(str(problem))
    if not options.check:
        print(json.dumps(wanted, indent=2))
        return 0
    lacking = missing(_policy_of(options.key), wanted)
    print(json.dumps(lacking, indent=2) if lacking else "The key's policy has all statements.")
    return 1 if lacking else 0


main.__doc__ = "Print the statements that the policy of a KMS key needs before an environment can use the key."


def _policy_of(key: str) -> Json:
    import boto3

    client = boto3.client("kms", region_name=key.split(":")[3])
    policy: Json = json.loads(client.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    return policy


if __name__ == "__main__":
    sys.exit(main())
