"""The options of servers for Faktory, and TLS."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import trustme

from tests.local.faktory.workers import node, node_modules, python
from tests.servers import Json, api, cli, dev, new_key, serving, write_function

JOB: Json = {"runtime": {"type": "faktory", "jobtype": "Job"}}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--faktory", ":0"], "--faktory needs a password; set STEPWELL_FAKTORY_PASSWORD"),
        (["--faktory", "nowhere"], "--faktory 'nowhere' is not an address; write it like :7419"),
        (["--faktory", ":70000"], "is not an address"),
        (["--faktory-password-file", "missing"], "--faktory-password-file needs --faktory too"),
        (["--faktory", ":0", "--faktory-password-file", "missing"], "cannot read --faktory-password-file missing"),
        (["--faktory", ":0", "--faktory-password-file", "/dev/null"], "is empty; write the password into it"),
    ],
)
def test_wrong_options_end_the_command_with_the_cure(options: list[str], why: str, tmp_path: Path) -> None:
    done = cli("serve", str(tmp_path), "--db", str(tmp_path / "db"), "--port", "0", *options)
    assert done.returncode == 2
    assert why in " ".join(done.stderr.split())


def test_an_address_in_use_is_named_with_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = cli("dev", str(tmp_path), "--db", str(tmp_path / "db"), "--port", "0", "--faktory", address)
    assert done.returncode == 1
    assert f"cannot listen on {address}" in done.stderr
    assert "choose another address for --faktory" in " ".join(done.stderr.split())


def test_a_step_for_workers_is_not_live_on_a_server_without_a_port_for_them(tmp_path: Path) -> None:
    functions = write_function(tmp_path / "f", a=JOB)
    with dev(functions, tmp_path / "db") as server:
        line = server.line(lambda line: "Faktory workers run this step" in str(line))
        assert "start the server with --faktory :7419" in str(line)
    with dev(functions, tmp_path / "db", "--faktory", "127.0.0.1:0") as server, api(server) as client:
        assert [function["id"] for function in client.get("/v1/functions")["data"]] == ["f"]


NODE = """
const fs = require("fs"), faktory = require("faktory-worker");
const url = new URL(process.env.FAKTORY_URL);
const tlsOptions = { ca: fs.readFileSync(process.argv[2]) };
faktory.connect({ host: url.hostname, port: url.port, password: url.password, tlsOptions }).then(async (client) => {
  await client.job("Encrypted", 1).push();
  await client.close();
});
"""
PYTHON = """
from pyfaktory import Client, Job, Producer
with Client(role="producer") as client:
    Producer(client=client).push(Job(jobtype="Encrypted", args=[2]))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_with_a_certificate_clients_connect_by_tls(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("pyfaktory", reason="pip install pyfaktory")
    modules = node_modules(tmp_path_factory.mktemp("node"))
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key, ca, password = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem", "password"))
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    ca.write_bytes(authority.cert_pem.bytes())
    password.write_text("hush\n")
    options = ("--tls-cert", certificate, "--tls-key", key, "--faktory", "127.0.0.1:0")
    functions, db = write_function(tmp_path / "f"), tmp_path / "db"
    api_key = new_key(db)
    arguments = ("serve", functions, "--port", "0", "--db", db, *options, "--faktory-password-file", password)
    with serving(*arguments) as server:
        address = server.line(lambda line: "faktory" in line)["faktory"]
        assert address.startswith("tcp+tls://127.0.0.1:")
        url = address.replace("//127.0.0.1", "//:hush@localhost")
        for name, script, command in (
            ("push.js", NODE, node(tmp_path / "push.js", url, modules)),
            ("push.py", PYTHON, python(tmp_path / "push.py", url)),
        ):
            (tmp_path / name).write_text(script)
            done = subprocess.run([*command, str(ca)], capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Error" not in done.stderr
        trust = ssl.create_default_context(cafile=str(ca))
        events = httpx.get(f"{server.url}/v1/events", headers={"authorization": f"Bearer {api_key}"}, verify=trust)
        assert [event["data"]["args"] for event in events.json()["data"]] == [[2], [1]]
