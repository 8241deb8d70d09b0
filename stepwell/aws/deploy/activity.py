"""Waits until Lambda has created or changed a function, and explains failures.

A function is `Pending` while Lambda creates its resources. In a VPC these are network interfaces. They take a minute or
more, unless other functions with the same subnets and security groups have them already:
https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html and .../configuration-vpc.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

Json = dict[str, Any]
Log = Callable[[str], None]
PENDING, FAILED, IN_PROGRESS = "Pending", "Failed", "InProgress"
_POLL_S, _REPORT_S, _LONGEST_S = 1.0, 15.0, 600.0
_NETWORK = "the environment's settings step_subnets and step_security_groups"
_FIXES = {  # by the codes of StateReasonCode and LastUpdateStatusReasonCode
    "SubnetOutOfIPAddresses": f"free addresses in the subnets, or add a subnet: {_NETWORK}",
    "InvalidSubnet": f"correct the subnets: {_NETWORK}",
    "InvalidSecurityGroup": f"correct the security groups, which must be of the subnets' VPC: {_NETWORK}",
    "EniLimitExceeded": "raise the quota of network interfaces of the VPC, or let more steps share their network",
    "InsufficientRolePermissions": "let the permissions boundary of the step's role allow the ec2 actions in it",
    "EC2RequestLimitExceeded": "push again in some minutes: the account makes too many requests to EC2",
}


class NotUsable(Exception):
    """Lambda could not create or change a function. The message gives the reason and the fix."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Waits for one function. `sleep`: sleeps for a number of seconds. `log`: receives progress messages for people."""

    client: Any
    name: str
    is_in_vpc: bool
    sleep: Callable[[float], None]
    log: Log

    def wait(self, *, also_failed: bool = False) -> None:
        """Returns when the function can be invoked and changed. Raises NotUsable.

        `also_failed`: returns also if an earlier update has failed.
        """
        waited = 0.0
        while True:
            found = self._read()
            if found is not None and not also_failed:
                self._check(found)
            if found is not None and found.get("State") != PENDING and found.get("LastUpdateStatus") != IN_PROGRESS:
                return
            if waited >= _LONGEST_S:
                raise NotUsable(f"{self.name} is not ready after {_LONGEST_S / 60:.0f} minutes; push again later")
            if waited % _REPORT_S == 0 and found is not None:
                self.log(self._report(waited))
            self.sleep(_POLL_S)
            waited += _POLL_S

    def _read(self) -> Json | None:
        """The function's configuration. None while Lambda does not find it yet: its API is eventually consistent."""
        try:
            found: Json = self.client.get_function_configuration(FunctionName=self.name)
        except self.client.exceptions.ResourceNotFoundException:
            return None
        return found

    def _check(self, found: Json) -> None:
        for field, reason in (("State", "StateReason"), ("LastUpdateStatus", "LastUpdateStatusReason")):
            if found.get(field) == FAILED:
                code, why = found.get(f"{reason}Code", ""), found.get(reason, "")
                raise NotUsable(_sentence(self.name, f"{code}: {why}" if code else why, _FIXES.get(code, "")))

    def _report(self, waited: float) -> str:
        work = "is creating network interfaces" if self.is_in_vpc else "is preparing the function"
        return f"Lambda {work}, {waited:.0f} s so far" if waited else f"Lambda {work}"


@contextmanager
def explained(name: str, is_in_vpc: bool) -> Iterator[None]:
    """Raises NotUsable, with a fix, if Lambda rejects a function's settings."""
    try:
        yield
    except ClientError as error:
        message = error.response["Error"].get("Message", "")
        fix = _fix(message, is_in_vpc)
        if not fix:
            raise
        raise NotUsable(_sentence(name, message, fix)) from error


def _fix(message: str, is_in_vpc: bool) -> str:
    text = message.lower()
    if "layer" in text and ("getlayerversion" in text or "not exist" in text or "not found" in text):
        return "correct the step's `layers`, or allow lambda:GetLayerVersion on it, here and in the layer's own policy"
    if "maximum allowed size" in text:
        return "code and layers may have 250 MB unpacked: make either smaller, or use runtime docker"
    if not is_in_vpc:
        return ""
    if "createnetworkinterface" in text:
        return _FIXES["InsufficientRolePermissions"]
    if "security group" in text or "securitygroup" in text or "invalidgroup" in text:
        return _FIXES["InvalidSecurityGroup"]
    return _FIXES["InvalidSubnet"] if "subnet" in text else ""


def _sentence(name: str, why: str, fix: str) -> str:
    return f"Lambda rejects {name}: {why.rstrip('.')}; " + (fix or "fix this and push again")
