"""Steps that run as another user: what they can and cannot reach. Some limits hold for every user of steps."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.local.system.step_user import find_step_user, python_for
from tests.servers import QUICK, Api, Json, api, cli, dev, eventually, new_key, program, serve, write_function
from tests.wasm import modules

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can become another user")
NAME = "nobody"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter; those of pytest are private."""
    folder = Path(tempfile.mkdtemp(prefix="stepwell-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run(http: Api, **data: Any) -> Json:
    return http.ended(http.send(data=data))


def tell(http: Api) -> Any:
    """The output of a run's step."""
    value = run(http)["steps"]["a"]
    assert value["status"] == "completed", value
    return value["output"]


LOOK = r"""
me=$(id -un); groups=$(id -Gn)
can() { if "$@" 2>/dev/null >&2; then printf yes; else printf no; fi; }
write() { true > "$1"; }
server=$(ps -o ppid= -p $$ | tr -d ' ')
input_owner=$(stat -c %U "$STEPWELL_INPUT") tmp_owner=$(stat -c %U "$TMPDIR")
cat <<J
{"me": "$me", "home": "$HOME", "input_owner": "$input_owner", "tmp_owner": "$tmp_owner", "cwd": "$(pwd)",
 "read code": "$(can cat main.sh)", "write code": "$(can write main.sh)", "add code": "$(can write new)",
 "chmod code": "$(can chmod u+w main.sh)", "list codes": "$(can ls ..)", "read input": "$(can cat "$STEPWELL_INPUT")",
 "write tmp": "$(can write "$TMPDIR/x")", "read db": "$(can cat DB)", "write db": "$(can write DB)",
 "read environ": "$(can cat /proc/$server/environ)", "read memory": "$(can head -c1 /proc/$server/mem)",
 "kill server": "$(can kill -0 $server)", "root group": "$(echo " $groups " | grep -c ' root ')"}
J
"""

AS_NOBODY = {
    "me": NAME, "home": "", "input_owner": NAME, "tmp_owner": NAME, "read code": "yes", "write code": "no",
    "add code": "no", "chmod code": "no", "list codes": "no", "read input": "yes", "write tmp": "yes", "read db": "no",
    "write db": "no", "read environ": "no", "read memory": "no", "kill server": "no", "root group": "0",
}  # fmt: skip


def looking(folder: Path) -> Path:
    step: Json = {"path": "file://step", "runtime": {"type": "lambda"}, **QUICK}
    (folder / "f/step").mkdir(parents=True)
    (folder / "f/step/main.sh").write_text(LOOK.replace("DB", str(folder / "s.db")))
    return write_function(folder / "f", a=step)


@needs_root
def test_programs_run_as_another_user_and_reach_their_code_alone(folder: Path) -> None:
    functions, db = looking(folder), folder / "s.db"
    key = new_key(db)
    with serve(functions, db, "--step-user", NAME) as server, api(server, key) as http:
        for _ in range(2):
            found = tell(http)
            assert found.pop("cwd").startswith(str(folder / ".s.db.code"))
            assert found == {**AS_NOBODY, "home": pwd.getpwnam(NAME).pw_dir}
        assert server.stop() == 0
    assert db.stat().st_mode & 0o777 == 0o600
    with serve(functions, db, "--step-user", str(pwd.getpwnam(NAME).pw_uid)) as server, api(server, key) as http:
        assert tell(http)["me"] == NAME  # by number
        assert not [line for line in server.lines if line["level"] != "info" and ".code" in line["message"]]
    harmless = write_function(folder / "g", a=program("""echo "\\"$(id -un)\\"" """))
    with serve(harmless, db) as server, api(server, key) as http:
        assert tell(http) == "root"
        assert (folder / ".s.db.code").stat().st_mode & 0o777 == 0o700  # closed again


@needs_root
def test_steps_can_enter_the_folder_of_the_default_database(folder: Path) -> None:
    functions, db = looking(folder), folder / ".stepwell/s.db"
    key = new_key(db)
    with serve(functions, db, "--step-user", NAME) as server, api(server, key) as http:
        assert tell(http)["me"] == NAME
    assert (folder / ".stepwell").stat().st_mode & 0o777 == 0o710


@needs_root
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_handlers_run_as_another_user(folder: Path) -> None:
    step: Json = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.handler"}, **QUICK}
    (folder / "f").mkdir()
    (folder / "f/app.js").write_text(
        "const os = require('os'), fs = require('fs');\n"
        "exports.handler = async () => {\n"
        "  fs.writeFileSync(`${process.env.TMPDIR}/x`, 'y');\n"
        "  let wrote = true; try { fs.writeFileSync('app.js', 'x') } catch { wrote = false }\n"
        "  return [os.userInfo().username, process.env.HOME, wrote];\n"
        "};\n"
    )
    functions, db = write_function(folder / "f", a=step), folder / "s.db"
    key = new_key(db)
    with serve(functions, db, "--step-user", NAME) as server, api(server, key) as http:
        for _ in range(2):
            assert tell(http) == [NAME, pwd.getpwnam(NAME).pw_dir, False]


@needs_root
@pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="the system has no Python that all may run")
def test_python_handlers_run_as_another_user_wherever_the_server_is_installed(folder: Path) -> None:
    step: Json = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.handler"}, **QUICK}
    (folder / "f").mkdir()
    (folder / "f/app.py").write_text("import os, sys\ndef handler(event, context): return [os.getuid(), os.getgid()]\n")
    functions, db, nobody = write_function(folder / "f", a=step), folder / "s.db", pwd.getpwnam(NAME)
    key = new_key(db)
    with serve(functions, db, "--step-user", NAME) as server, api(server, key) as http:
        for _ in range(2):
            assert tell(http) == [nobody.pw_uid, nobody.pw_gid]


@needs_root
def test_the_processes_of_another_user_are_killed_with_their_attempt(folder: Path) -> None:
    mark = "86421.5"
    step = program(f"sleep {mark} & setsid sleep {mark} & sleep {mark}", timeout="300ms")
    functions, db = write_function(folder / "f", a=step), folder / "s.db"
    key = new_key(db)
    with serve(functions, db, "--step-user", NAME) as server, api(server, key) as http:
        assert run(http)["steps"]["a"]["error"]["kind"] == "timeout"
        assert server.stop() == 0
    assert subprocess.run(["pgrep", "-f", f"sleep {mark}"], check=False).returncode == 1


@needs_root
@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("no-such-user", "there is no user 'no-such-user'; create it"),
        ("4294967294", "there is no user"),
        ("root", "is root"),
        ("0", "is root"),
    ],
)
def test_an_unusable_user_is_refused_at_the_start(folder: Path, user: str, says: str) -> None:
    made = cli("serve", str(folder), "--db", str(folder / "s.db"), "--port", "0", "--step-user", user)
    assert (made.returncode, made.stdout) == (1, "")
    assert says in " ".join(made.stderr.split())


@needs_root
def test_code_that_the_user_cannot_reach_is_an_error_at_the_start(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    db = folder / "closed/s.db"
    made = cli("serve", str(folder), "--db", str(db), "--port", "0", "--step-user", NAME)
    assert made.returncode == 1
    assert f"the user {NAME} cannot enter" in " ".join(made.stderr.split())
    assert "--db" in made.stderr


@needs_root
def test_only_root_can_run_steps_as_another_user(folder: Path) -> None:
    code = (
        "import os; os.setuid(65534)\n"
        "from stepwell.local.system.step_user import CannotBecome, find_step_user\n"
        "try: find_step_user('daemon')\n"
        "except CannotBecome as reason: print(reason)"
    )
    if not all(parent.stat().st_mode & 0o001 for parent in Path(sys.executable).resolve().parents):
        code = code.replace("os.setuid(65534)", "os.geteuid = lambda: 65534")  # otherwise it could not import anything
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout == (
        "only root can run steps as another user, such as daemon: start the server as root, or without --step-user\n"
    )


# --- without another user ----------------------------------------------------------------------------------------


def test_steps_see_nothing_of_the_servers_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_SECRET", "hush")
    steps = {
        "a": program("env -0 | base64 -w0"),
        "b": {
            "path": "file://.",
            "runtime": {"type": "lambda", "handler": "app.handler"},
            "after": [{"step": "a"}],
            **QUICK,
        },
    }
    (tmp_path / "f").mkdir()
    (tmp_path / "f/app.py").write_text("import os\ndef handler(event, context): return dict(os.environ)\n")
    with dev(write_function(tmp_path / "f", **steps), tmp_path / "db") as server, api(server) as http:
        ended = run(http)
        assert "hush" not in json.dumps(ended)
        assert "STRIPE_SECRET" not in ended["steps"]["b"]["output"]
        assert set(ended["steps"]["b"]["output"]) <= {
            "PATH", "HOME", "LANG", "LC_CTYPE", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "AWS_LAMBDA_FUNCTION_NAME",
            "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "LAMBDA_TASK_ROOT", "_HANDLER",
        }  # fmt: skip


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_the_memory_of_a_server_is_hidden_from_other_processes_of_its_user(folder: Path) -> None:
    """From processes of the same user without root's capabilities."""

    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]

    def is_readable(pid: int, what: str) -> bool:
        asked = [*plain, "head", "-c1", f"/proc/{pid}/{what}"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    other = subprocess.Popen([*plain, "sleep", "60"])
    try:
        eventually(lambda: is_readable(other.pid, "environ"))
    finally:
        other.kill()
        other.wait()
    with serve(write_function(folder / "f"), folder / "s.db", within=plain) as server:
        assert not is_readable(server.process.pid, "environ")
        assert not is_readable(server.process.pid, "maps")


@needs_root
def test_modules_run_as_another_user_if_that_user_has_wasmtime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user cannot reach this Python, which has wasmtime, so the first `python3` on PATH is used."""
    wasmtime = pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    if shutil.which("python3", path="/usr/bin") is None or python_for(find_step_user(NAME)) == sys.executable:
        pytest.skip("there is no Python in /usr/bin, or that user can reach this Python")
    environment = folder / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3.*/site-packages")
    functions, db = folder / "f", folder / "s.db"
    (functions / "step").mkdir(parents=True)
    (functions / "step/main.wasm").write_bytes(modules.prints_stdin())
    write_function(functions, a={"path": "file://step", "runtime": {"type": "wasm"}, **QUICK})
    key = new_key(db)
    monkeypatch.setenv("PATH", f"{environment}/bin:{os.environ['PATH']}")
    with serve(functions, db, "--step-user", NAME) as server:
        line = server.line(lambda line: "wasmtime" in line.get("message", ""))
        assert f"not installed for python3 of the user {NAME}" in line["message"]
        assert server.stop() == 0
    shutil.copytree(Path(wasmtime.__file__).parent, packages / "wasmtime")
    with serve(functions, db, "--step-user", NAME) as server, api(server, key) as http:
        assert tell(http)["ctx"]["step_id"] == "a"
        (compiled,) = (folder / ".s.db.code/.compiled").iterdir()
        assert (compiled.owner(), oct(compiled.stat().st_mode)[-3:]) == ("root", "644")
