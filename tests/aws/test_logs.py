"""Logs of attempts, found by request id in a Lambda's streams."""

from __future__ import annotations

import json
import time

import pytest

from stepwell.aws.api.logs import MAX_LOG_BYTES, Logs, Source, of_invocation, of_task
from stepwell.aws.clients import client

NOW = time.time_ns() // 1_000_000 - 60_000  # CloudWatch refuses lines with a time in the future


@pytest.fixture(autouse=True)
def in_account(account: None) -> None: ...


def write(group: str, stream: str, *lines: str, at: int = NOW) -> None:
    logs = client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    events = [{"timestamp": at + n, "message": f"{line}\n"} for n, line in enumerate(lines)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def invocation(name: str, *lines: str) -> list[str]:
    report = f"REPORT RequestId: {name}\tDuration: 3 ms"
    return [f"START RequestId: {name} Version: $LATEST", *lines, f"END RequestId: {name}", report]


def read(source: Source) -> str:
    return Logs().read_one(source).decode()


def test_a_log_is_what_stands_between_its_start_and_its_end() -> None:
    lines = [
        "INIT_START Runtime",
        *invocation("a", "before"),
        *invocation("b", "one", "two b"),
        *invocation("c", "after"),
    ]
    write("/aws/lambda/f", "s", *lines)
    write("/aws/lambda/f", "another", *invocation("d", "elsewhere"))
    assert read(of_invocation("f", "b", NOW, NOW)) == "one\ntwo b\n"
    assert read(of_invocation("arn:aws:lambda:eu-west-1:123456789012:function:f", "c", NOW, NOW)) == "after\n"
    assert read(of_invocation("f", "d", NOW, NOW)) == "elsewhere\n"


def test_what_a_process_printed_at_its_start_belongs_to_its_first_invocation() -> None:
    write("/aws/lambda/f", "s", "INIT_START Runtime", "imported", *invocation("a", "one"), *invocation("b", "two"))
    write("/aws/lambda/f", "another", "of a start long ago", *invocation("c", "three"))
    assert [read(of_invocation("f", name, NOW, NOW)) for name in "abc"] == ["imported\none\n", "two\n", "three\n"]


def test_a_log_without_its_end_goes_as_far_as_it_is_there() -> None:
    write("/aws/lambda/f", "s", *invocation("a", "so far")[:2])
    assert read(of_invocation("f", "a", NOW, NOW)) == "so far\n"


def test_the_log_of_an_invocation_whose_end_was_lost_has_nothing_of_the_next() -> None:
    write("/aws/lambda/f", "s", *invocation("a", "mine")[:2], *invocation("b", "not mine"))
    assert read(of_invocation("f", "a", NOW, NOW)) == "mine\n"


def test_a_log_that_is_not_there_is_empty() -> None:
    assert read(of_invocation("nothing", "a", NOW, NOW)) == ""
    write("/aws/lambda/f", "s", *invocation("a", "x"))
    assert read(of_invocation("f", "b", NOW, NOW)) == ""
    assert read(of_task("nothing", "task", NOW, NOW)) == ""


def test_the_log_of_a_container_is_its_stream() -> None:
    write("/stepwell/f", "stepwell/step/task-1", "one", "two")
    write("/stepwell/f", "stepwell/step/task-2", "other")
    assert read(of_task("/stepwell/f", "task-1", NOW, NOW)) == "one\ntwo\n"


def test_a_log_is_cut_at_4_mib_and_says_so() -> None:
    write("/aws/lambda/f", "s", *invocation("a", *(["x" * 200_000] * 4)))
    for number in range(6):
        write("/stepwell/f", f"s{number}", "-")
    lines = ["x" * 200_000] * 4
    for part in range(6):
        client("logs").put_log_events(
            logGroupName="/stepwell/f",
            logStreamName="s0",
            logEvents=[{"timestamp": NOW + 1 + part, "message": line} for line in lines],
        )
    log = Logs().read_one(Source("/stepwell/f", None, "s0", NOW, NOW + 100))
    assert log.endswith(b"\nthe log is cut here: an attempt keeps at most 4 MiB\n")
    assert MAX_LOG_BYTES < len(log) < MAX_LOG_BYTES + 100
    assert len(read(of_invocation("f", "a", NOW, NOW))) == 800_004


def test_of_many_attempts_the_logs_of_the_latest_are_read() -> None:
    for number in range(25):
        write("/aws/lambda/f", f"s{number}", *invocation(f"r{number:02}", f"line {number}"))
    found = Logs().read({n: of_invocation("f", f"r{n:02}", NOW, NOW + n) for n in range(25)})
    assert found[24] == b"line 24\n"
    assert found[5] == b"line 5\n"
    assert all(b"not shown" in found[n] and b"/aws/lambda/f" in found[n] for n in range(5))


def test_the_log_of_an_invocation_that_is_over_is_asked_for_once() -> None:
    write("/aws/lambda/f", "s", *invocation("a", "x"))
    asked: list[str] = []
    client("logs").meta.events.register("before-call.cloudwatch-logs.*", lambda model, **_: asked.append(model.name))
    logs = Logs()
    source = of_invocation("f", "a", NOW, NOW)
    assert logs.read_one(source) == b"x\n"
    before = list(asked)
    assert logs.read_one(source) == b"x\n"
    assert before == asked != []


@pytest.mark.parametrize("line", ["y", '"', "\x00", "\\", "ü"])
def test_logs_fit_into_a_lambdas_answer_whatever_they_are_escaped_to(line: str) -> None:
    text = (line * 50 + "\n") * 20_000
    write("/aws/lambda/f", "s", *invocation("a", text[:-1]), *invocation("b", text[:-1]))
    sources = {name: of_invocation("f", name, NOW, NOW) for name in "ab"}
    found = Logs().read(sources)
    answer = json.dumps([found[name].decode(errors="replace") for name in "ab"], ensure_ascii=False)
    assert len(json.dumps(answer, ensure_ascii=False).encode()) < 5_000_000
    for name in "ab":
        assert found[name].decode() == text or "/aws/lambda/f" in found[name].decode(errors="replace")[-200:]
