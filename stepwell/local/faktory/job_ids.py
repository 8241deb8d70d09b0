"""The ids of jobs: the attempt that a job stands for, signed, so that a worker can end only what it was given."""

from __future__ import annotations

import re

from stepwell.core.signing import SIGNATURE, Signer
from stepwell.platform import AttemptId

_JID = re.compile(rf"(([a-z2-7]{{26}})\.(\d{{1,4}})\.(\d{{1,9}}))\.({SIGNATURE})", re.ASCII)


class JobIds:
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def jid_of(self, attempt: AttemptId) -> str:
        text = "{}.{}.{}".format(*attempt)
        return f"{text}.{self._signer.sign(_signed_text(text))}"

    def attempt_of(self, jid: str) -> AttemptId | None:
        """The attempt of a job; None if this server has not made the id."""
        found = _JID.fullmatch(jid)
        if found is None:
            return None
        text, run_id, step, attempt, signature = found.groups()
        if not self._signer.is_signature(signature, _signed_text(text)):
            return None
        return run_id, int(step), int(attempt)


def _signed_text(text: str) -> bytes:
    """The bytes that the signature covers. No other text that the keys sign begins with this prefix."""
    return b"faktory:" + text.encode()
