"""The logs that the emulated Lambda stores of the output of sandboxes."""

from __future__ import annotations

from pathlib import Path

from stepwell.testing.lambdas.logs import SandboxLog


def test_a_log_has_lambdas_lines_and_the_processs_in_the_order_of_printing(tmp_path: Path) -> None:
    log = SandboxLog(tmp_path / "log")
    log.write("START")
    log.file.write(b"printed, without a line break")
    log.write("END", "REPORT")
    assert log.read() == ["START", "printed, without a line break", "END", "REPORT"]
    log.close()


def test_a_runtime_that_asks_for_work_after_its_sandbox_was_removed_changes_nothing(tmp_path: Path) -> None:
    log = SandboxLog(tmp_path / "log")
    log.write("START")
    log.close()
    log.write("START of an invocation that was dropped")
    assert log.read() == []
    assert (tmp_path / "log").read_text() == "START\n"
