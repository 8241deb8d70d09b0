"""Programs that misbehave: each ends with a report in time, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import pytest

from tests.adapter.lambda_service import Lambda

FOREVER = 1000
SOON_S = 10.0  # seconds; far below FOREVER, and far above the normal duration


def is_alive(pid: str | bytes) -> bool:
    return Path("/proc", pid.decode() if isinstance(pid, bytes) else pid).exists()


def running(script: str) -> list[str]:
    """The ids of the processes that run this script."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if script.encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found


def pids(sandbox: Lambda) -> list[str]:
    return (sandbox.folder / "pids").read_text().split()


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        f"sleep {FOREVER}",
        f"trap '' TERM INT HUP QUIT; sleep {FOREVER}; sleep {FOREVER}",
        "kill -STOP $$",
        "yes",
        "yes >&2",
        "head -c 100000000 /dev/zero; cat /dev/zero",
        f"(sleep {FOREVER}) & wait",
        f"setsid sleep {FOREVER} & wait",
        f"exec >&- 2>&- <&-; sleep {FOREVER}",
    ],
)
def test_a_program_is_killed_at_the_timeout_whatever_it_does(sandbox: Lambda, script: str) -> None:
    started = time.monotonic()
    report = sandbox.run(script, timeout_ms=300)
    assert report["timed_out"] is True
    assert 0.3 <= time.monotonic() - started < SOON_S


def test_a_program_is_killed_a_second_before_lambda_s_deadline(sandbox: Lambda) -> None:
    started = time.monotonic()
    report = sandbox.run(f"sleep {FOREVER}", left_ms=1500)
    assert report["timed_out"] is True
    assert 0.3 <= time.monotonic() - started < 1.5


def test_after_a_timeout_all_output_goes_to_the_log(sandbox: Lambda) -> None:
    report = sandbox.run(f"echo '{{\"a\": 1}}'; sleep {FOREVER}", timeout_ms=300)
    assert report["timed_out"] is True
    assert sandbox.log() == b'{"a": 1}\n'


# --- processes -------------------------------------------------------------------------------------------------------

UNTIL_IT_IS_THERE = "until [ -s $PIDS ]; do :; done"
STAY = {
    "in its group": f"sleep {FOREVER} & echo $! > $PIDS",
    "as an orphan that holds stdout": f"(sleep {FOREVER} & echo $! > $PIDS)",
    "as an orphan of another session": (
        f"setsid sh -c 'echo $$ > $PIDS; exec sleep {FOREVER}' & {UNTIL_IT_IS_THERE}"
    ),
    "as a daemon that ignores signals": (
        "setsid sh -c 'trap \"\" TERM HUP;"
        f" (trap \"\" TERM; echo $$ > $PIDS; sleep {FOREVER}; sleep {FOREVER})' <&- >&- 2>&- & {UNTIL_IT_IS_THERE}"
    ),
    "as a daemon without its variables": (
        f"env -i PIDS=$PIDS PATH=$PATH setsid sh -c 'echo $$ > $PIDS; exec sleep {FOREVER}' & {UNTIL_IT_IS_THERE}"
    ),
    "as a tree of sessions": (
        f"setsid sh -c 'setsid sh -c \"echo \\$\\$ >> $PIDS; sleep {FOREVER}\" & echo $$ >> $PIDS; sleep {FOREVER}' &"
        " until [ $(wc -l < $PIDS 2>/dev/null || echo 0) = 2 ]; do :; done"
    ),
    "printing": f"setsid sh -c 'echo $$ > $PIDS; exec yes' & {UNTIL_IT_IS_THERE}",
}  # fmt: skip


@pytest.mark.parametrize("how", STAY)
def test_processes_left_behind_are_killed_without_waiting(sandbox: Lambda, how: str) -> None:
    started = time.monotonic()
    report = sandbox.run(f"{STAY[how]}; echo '[1]'", PIDS=str(sandbox.folder / "pids"))
    assert time.monotonic() - started < SOON_S
    assert report["exit"] == 0
    assert pids(sandbox)
    assert not any(is_alive(pid) for pid in pids(sandbox))


def test_a_process_that_forks_continuously_is_killed(sandbox: Lambda) -> None:
    """The children leave the session, and each lives only for a moment."""
    runner = (
        f"#!{sys.executable} -S\n"
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while True:\n"
        "        if os.fork(): os._exit(0)\n"
        f"        open({str(sandbox.folder / 'pids')!r}, 'w').write(str(os.getpid()))\n"
        f"while not os.path.exists({str(sandbox.folder / 'pids')!r}): pass\n"
        "print('{}')\n"
    )
    sandbox.start(sandbox.script(runner))
    assert sandbox.invoke()["stdout"] == b"{}\n"
    assert running(str(sandbox.code / "main.sh")) == []


def test_a_program_that_kills_its_own_group_is_reported_as_killed(sandbox: Lambda) -> None:
    assert sandbox.run("kill -9 0")["signal"] == 9


def test_the_end_of_an_orphan_is_not_the_end_of_the_program(sandbox: Lambda) -> None:
    report = sandbox.run("(setsid sh -c 'exit 7' &); sleep 0.2; echo '[1]'; exit 3")
    assert (report["exit"], report["stdout"]) == (3, b"[1]\n")


def test_a_program_may_close_its_stdout_and_go_on(sandbox: Lambda) -> None:
    report = sandbox.run(f"echo '[1]'; exec >&- 2>&-; sleep 0.3; touch {sandbox.folder}/end")
    assert report["stdout"] == b"[1]\n"
    assert (sandbox.folder / "end").exists()


def test_a_program_need_not_read_its_input(sandbox: Lambda) -> None:
    assert sandbox.run("echo '[1]'", b'"%b"' % (b"x" * 600_000))["stdout"] == b"[1]\n"


# --- between invocations ---------------------------------------------------------------------------------------------


def test_nothing_is_kept_between_invocations(sandbox: Lambda) -> None:
    sandbox.start(
        sandbox.script('ls -A "$TMPDIR"; mkdir -p "$TMPDIR/a/b"; ln -s / "$TMPDIR/root"; chmod 000 "$TMPDIR/a"')
    )
    assert [sandbox.invoke()["stdout"] for _ in range(3)] == [b""] * 3
    sandbox.wait_until_clean()
    assert list(sandbox.tmp.iterdir()) == []
    assert Path("/bin/sh").exists()


def test_an_invocation_after_a_timeout_is_normal(sandbox: Lambda) -> None:
    sandbox.start(sandbox.script(f'read x; [ "$x" = wait ] && sleep {FOREVER}; echo "$x"'), timeout_ms=500)
    assert sandbox.invoke(b"wait\n")["timed_out"] is True
    assert sandbox.invoke(b"go\n")["stdout"] == b"go\n"


def test_another_temporary_folder_is_used_if_the_first_is_full(sandbox: Lambda) -> None:
    assert sandbox.run("echo $TMPDIR", TMPDIR="/no/such/folder")["stdout"].startswith(b"/tmp/stepwell-")
