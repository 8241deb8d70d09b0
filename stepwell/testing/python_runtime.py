"""Starts Lambda's own runtime for Python, as /var/runtime/bootstrap.py does on Lambda.

One rule: the runtime is loaded first, and only then the function's code gets its place at the front of the path; so a
file of the function may have the name of a module that the runtime uses.
"""

import logging  # noqa: F401 (Lambda has loaded these before the function's code can be found)
import os
import sys
import traceback  # noqa: F401

import awslambdaric.__main__ as runtime

sys.dont_write_bytecode = True  # on Lambda nobody can write beside the code; here root could
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
runtime.main(sys.argv)
