"""Settings: documented as they are, and refused with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.settings import BadSetting, Settings, table


def from_context(values: Mapping[str, Any]) -> Settings:
    return Settings.from_context(values.get, values)


def test_the_table_in_the_readme_is_the_code_s() -> None:
    readme = Path(__file__).parents[2] / "infra" / "README.md"
    assert table() in readme.read_text()


def test_texts_of_the_command_line_become_what_they_mean() -> None:
    settings = from_context({"env": "prod", "batch_size": "5", "keep_data": "false", "alarms": True})
    assert settings == Settings(env="prod", batch_size=5, keep_data=False, alarms=True)


def test_cdk_s_own_context_is_let_through() -> None:
    names = ("aws:cdk:enable-path-metadata", "@aws-cdk/core:x", "vpc-provider:account=1:region=x", "cdk-migrate")
    assert from_context(dict.fromkeys(names, True)) == Settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evn": "dev"}, "there is no setting evn; did you mean env?"),
        ({"zzz": "1"}, "there is no setting zzz; infra/README.md lists the settings"),
        ({"env": "Prod"}, "env: 'Prod' is not up to 24 of a-z, 0-9 and -, a letter first"),
        ({"ingest": "queue"}, "ingest: queue is none of bus, direct"),
        ({"batch_size": "ten"}, "batch_size: 'ten' is no number"),
        ({"batch_size": "11"}, "batch_size: 11 is not from 1 to 10"),
        ({"archive_days": "-1"}, "archive_days: -1 is not 0 or more"),
        ({"retention_days": "31"}, "retention_days: 31 is none of 1, 3, 5,"),
        ({"keep_data": "no"}, "keep_data: 'no' is neither true nor false"),
        ({"domain": "a.example.com"}, "domain: a certificate of it is needed too"),
        ({"certificate": "arn:aws:acm:us-east-1:123456789012:certificate/1"}, "certificate: say which domain"),
        ({"vpc": "mine"}, "vpc: 'mine' is not `default` or the id of a VPC"),
        ({"subnets": "subnet-1"}, "subnets: say which VPC they are in"),
        ({"step_subnets": "subnet-1"}, "step_subnets, step_security_groups: Lambda needs both"),
        ({"step_subnets": "net-1", "step_security_groups": "sg-1"}, "step_subnets: 'net-1' is not ids of up to 16"),
        ({"alarm_email": "a@b.org", "alarms": "false"}, "alarm_email: there are no alarms to send"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting) as refused:
        from_context(values)
    assert str(refused.value).startswith(message)
