"""How a step is executed on one machine: programs, Lambda handlers, HTTP calls, containers.

One rule: whatever a runner does, an attempt ends exactly once, and its log has at most 4 MiB.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

from stepwell.core.messages import Outcome
from stepwell.core.outcome import failure
from stepwell.core.plan import Step
from stepwell.local.runners.container import ContainerRunner, dockerfile_of, local_command
from stepwell.local.runners.environment import search_path
from stepwell.local.runners.handler import HandlerRunner, module_file
from stepwell.local.runners.http import HttpRunner
from stepwell.local.runners.job import CannotRun, End, Job, Log, Runner, Running
from stepwell.local.runners.program import NotStarted, ProgramRunner, command_of, locate
from stepwell.local.runners.scratch import Scratch

MAX_LOG_BYTES = 4 * 1024 * 1024
