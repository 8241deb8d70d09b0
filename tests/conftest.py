"""What holds for all tests."""

from __future__ import annotations

import functools
import os
import sys

import botocore.session
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about us.
settings.register_profile("stepwell", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stepwell")

# Tests start a thousand Python processes: what one has compiled, others read, whatever this shell says of bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# boto3 reads megabytes of JSON for the clients of each session, and each test has a session of its own.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)
