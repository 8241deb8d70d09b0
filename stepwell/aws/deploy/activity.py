"""Waiting until Lambda has made or changed a function, and why it could not.

A function is `Pending` while Lambda makes what it needs; in a VPC these are network interfaces, which takes a minute or
more, unless others with the same subnets and security groups have them already:
https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html and .../configuration-vpc.html. One rule: who waits
is told what for, and who is refused is told what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

Json = dict[str, Any]
Says = Callable[[str], None]
PENDING, FAILED, IN_PROGRESS = "Pending", "Failed", "InProgress"
_POLL_S, _REPORT_S, _LONGEST_S = 1.0, 15.0, 600.0
_NETWORK = "the environment's settings step_subnets and step_security_groups"
_CURES = {  # by the codes of StateReasonCode and LastUpdateStatusReasonCode
    "SubnetOutOfIPAddresses": f"free addresses in the subnets, or add a subnet: {_NETWORK}",
    "InvalidSubnet": f"correct the subnets: {_NETWORK}",
    "InvalidSecurityGroup": f"correct the security groups, which must be of the subnets' VPC: {_NETWORK}",
    "EniLimitExceeded": "raise the quota of network interfaces of the VPC, or let more steps share their network",
    "InsufficientRolePermissions": "let the permissions boundary of the step's role allow the ec2 actions in it",
    "EC2RequestLimitExceeded": "push again in some minutes: the account makes too many requests of EC2",
}


class NotUsable(Exception):
    """Lambda could not make or change a function; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Of one function. `sleep`: waits so many seconds. `says`: tells people what is waited for."""

    client: Any
    name: str
    is_in_vpc: bool
    sleep: Callable[[float], None]
    says: Says

    def wait(self, *, also_failed: bool = False) -> None:
        """Return when it can be invoked and changed. Raises NotUsable. `also_failed`: an update that failed earlier is
        no obstacle."""
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
                self.says(self._report(waited))
            self.sleep(_POLL_S)
            waited += _POLL_S

    def _read(self) -> Json | None:
        """Its configuration; None while the request that made it is not known everywhere."""
        try:
            found: Json = self.client.get_function_configuration(FunctionName=self.name)
        except self.client.exceptions.ResourceNotFoundException:
            return None
        return found

    def _check(self, found: Json) -> None:
        for field, reason in (("State", "StateReason"), ("LastUpdateStatus", "LastUpdateStatusReason")):
            if found.get(field) == FAILED:
                code, why = found.get(f"{reason}Code", ""), found.get(reason, "")
                raise NotUsable(_sentence(self.name, f"{code}: {why}" if code else why, _CURES.get(code, "")))

    def _report(self, waited: float) -> str:
        what = "makes its network interfaces" if self.is_in_vpc else "makes it ready"
        return f"Lambda {what}, for {waited:.0f} s" if waited else f"Lambda {what}"


@contextmanager
def explained(name: str, is_in_vpc: bool) -> Iterator[None]:
    """Turns Lambda's refusal of a function's settings into NotUsable, with what to do."""
    try:
        yield
    except ClientError as error:
        message = error.response["Error"].get("Message", "")
        cure = _cure(message, is_in_vpc)
        if not cure:
            raise
        raise NotUsable(_sentence(name, message, cure)) from error


def _cure(message: str, is_in_vpc: bool) -> str:
    text = message.lower()
    if "layer" in text and ("getlayerversion" in text or "not exist" in text or "not found" in text):
        return "correct the step's `layers`, or allow lambda:GetLayerVersion on it, here and in the layer's own policy"
    if "maximum allowed size" in text:
        return "code and layers may have 250 MB unpacked: take less of either, or use runtime docker"
    if not is_in_vpc:
        return ""
    if "createnetworkinterface" in text:
        return _CURES["InsufficientRolePermissions"]
    if "security group" in text or "securitygroup" in text or "invalidgroup" in text:
        return _CURES["InvalidSecurityGroup"]
    return _CURES["InvalidSubnet"] if "subnet" in text else ""


def _sentence(name: str, why: str, cure: str) -> str:
    return f"Lambda refuses {name}: {why.rstrip('.')}" + (f"; {cure}" if cure else "; push again when that is mended")
