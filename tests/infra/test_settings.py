"""Settings: the README lists them, and errors tell what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.setting_fields import BadSetting
from infra.settings import Settings, table


def from_context(values: Mapping[str, Any]) -> Settings:
    return Settings.from_context(values.get, values)


def test_the_table_in_the_readme_is_up_to_date() -> None:
    readme = Path(__file__).parents[2] / "infra" / "README.md"
    assert table() in readme.read_text()


def test_texts_of_the_command_line_are_converted_to_types() -> None:
    settings = from_context({"env": "prod", "batch_size": "5", "keep_data": "false", "alarms": True})
    assert settings == Settings(env="prod", batch_size=5, keep_data=False, alarms=True)


def test_cdk_s_own_context_is_ignored() -> None:
    names = ("aws:cdk:enable-path-metadata", "@aws-cdk/core:x", "vpc-provider:account=1:region=x", "cdk-migrate")
    assert from_context(dict.fromkeys(names, True)) == Settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evn": "dev"}, "there is no setting evn; did you mean env?"),
        ({"zzz": "1"}, "there is no setting zzz; infra/README.md lists the settings"),
        ({"env": "Prod"}, "env: 'Prod' is not a name of up to 24 characters"),
        ({"ingest": "queue"}, "ingest: queue is not one of bus, direct"),
        ({"batch_size": "ten"}, "batch_size: 'ten' is not a number"),
        ({"batch_size": "11"}, "batch_size: 11 is not from 1 to 10"),
        ({"archive_days": "-1"}, "archive_days: -1 is not 0 or more"),
        ({"retention_days": "31"}, "retention_days: 31 is not one of 1, 3, 5,"),
        ({"keep_data": "no"}, "keep_data: 'no' is neither true nor false"),
        ({"domain": "a.example.com"}, "domain: it needs a certificate"),
        ({"certificate": "arn:aws:acm:us-east-1:123456789012:certificate/1"}, "certificate: it needs a domain"),
        ({"vpc": "mine"}, "vpc: 'mine' is not `default` or the id of a VPC"),
        ({"subnets": "subnet-1"}, "subnets: they need the id of their VPC"),
        ({"step_subnets": "subnet-1"}, "step_subnets, step_security_groups: set both"),
        ({"step_subnets": "net-1", "step_security_groups": "sg-1"}, "step_subnets: 'net-1' is not a list of up to 16"),
        ({"alarm_email": "a@b.org", "alarms": "false"}, "alarm_email: the alarms are off"),
        ({"alarm_email": "a@b.org", "profile": "dev"}, "alarm_email: the alarms are off; set -c alarms=true"),
        ({"profile": "prod"}, "profile: prod is not one of standard, dev"),
        ({"warm_throughput": "many"}, "warm_throughput: 'many' is not reads/writes a second, such as 24000/8000"),
        ({"warm_throughput": "24000/100"}, "warm_throughput: 24000/100 is less than 12000/4000, which every table has"),
        ({"batching_window": "301"}, "batching_window: 301 is not from 0 to 300"),
    ],
)
def test_invalid_settings_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting) as refused:
        from_context(values)
    assert str(refused.value).startswith(message)


def test_the_profile_dev_turns_off_what_costs_while_idle() -> None:
    settings = from_context({"profile": "dev"})
    off = ("alarms", "dashboard", "metrics", "point_in_time_recovery")
    assert [getattr(settings, name) for name in off] == [False] * len(off)
    assert settings.log_days == 3
    changed = {*off, "log_days", "profile"}
    same = {name for name in Settings.__dataclass_fields__ if getattr(settings, name) == getattr(Settings(), name)}
    assert same == set(Settings.__dataclass_fields__) - changed


def test_settings_override_the_profile() -> None:
    given = {"profile": "dev", "alarms": "true", "alarm_email": "a@b.org", "log_days": "7"}
    settings = from_context(given)
    assert (settings.alarms, settings.alarm_email, settings.log_days) == (True, "a@b.org", 7)
    assert (settings.dashboard, settings.metrics) == (False, False)


def test_the_profile_standard_is_the_default() -> None:
    assert from_context({"profile": "standard"}) == from_context({}) == Settings() == Settings.of_profile()
