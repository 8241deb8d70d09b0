"""The page reference/serve.md: the settings of a server on one machine, from the options of `stepwell serve`."""

from __future__ import annotations

from cli_commands import commands
from cli_page import option_table
from tables import source

PAGE = """\
# Configuration of a server

{source}

`stepwell serve` has no configuration file: everything is an option. [Production on one machine](../guides/one-machine.md)
shows how to use it. The settings of an environment in AWS are in [infra/README.md](../../infra/README.md).

## Options of `stepwell serve`

{serve}
## Options of `stepwell dev`

{dev}
## Environment variables

| variable | used by | meaning |
| --- | --- | --- |
| `STEPWELL_PUBLIC_URL` | `serve`, `dev` | The same as `--public-url`. |
| `STEPWELL_FAKTORY_PASSWORD` | `serve`, `dev` | The password of Faktory workers and clients. |
| `STEPWELL_NO_CONTAINERS` | `serve`, `dev`, `run` | The same as `--no-containers`, if it is `1`. |
| `STEPWELL_URL` | commands | The server; `http://127.0.0.1:8288` if not set. |
| `STEPWELL_ENV` | commands | The environment in AWS, instead of a server. |
| `STEPWELL_KEY` | commands | The key. |
| `STEPWELL_FROM_KEY`, `STEPWELL_TO_KEY` | `run`, `replay` | The keys of `--from` and `--to`. |
| `STEPWELL_CACHE` | `push`, `cdk deploy`, `run`, tests | Where the built step adapter and compiled WebAssembly modules are kept; `~/.cache/stepwell` if not set. |
| `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` | everything that sends requests | [Proxies and certificates](../operate/proxies.md). |

A step sees none of the server's variables, except PATH and HOME: [step contract](step-contract.md).
"""


def page() -> str:
    """The content of the page."""
    found = dict(commands())
    serve, dev = (option_table(found[(name,)]) for name in ("serve", "dev"))
    return PAGE.format(source=source("the options of the commands in stepwell/cli/server"), serve=serve, dev=dev)
