"""Load peaks: many cold starts that read values from SSM, and many parallel steps that end together."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from rehearsal.real.account import Account, Json
from rehearsal.real.checks import Failed, Skipped, check
from rehearsal.real.checks_basics import run_of, seconds

COLD = 50
WIDE = 100
HIGHER_THROUGHPUT = "/ssm/parameter-store/high-throughput-enabled"
MOST_READ = 400  # read units for a run of WIDE parallel steps; 4 times as many if every fold read everything

_CODE = "import os, time\n\n\ndef step(event, context):\n    time.sleep(2)\n    return {'has': 'SMOKE' in os.environ}\n"


@check(f"{COLD} sandboxes that start together all get their values from SSM", seconds=60, usd=0.01)
def cold_starts_get_their_values(account: Account) -> str:
    """The step has a `.env` file, and takes 2 s, so that each attempt needs a separate sandbox."""
    definition = {
        "id": "smoke-cold",
        "triggers": [{"event": "smoke/cold"}],
        "steps": {"a": {"path": "file://./code", "runtime": {"type": "lambda", "handler": "app.step"}}},
    }
    with TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        code.mkdir()
        (code / "app.py").write_text(_CODE)
        (code / ".env").write_text("SMOKE=1\n")
        (Path(folder) / "stepwell.json").write_text(json.dumps(definition))
        account.push(Path(folder))
    _ = account.api  # created before several threads use it
    with ThreadPoolExecutor(COLD) as pool:
        runs = list(pool.map(lambda n: run_of(account, {"name": "smoke/cold", "data": {"n": n}}, 120), range(COLD)))
    again = [run["id"] for run in runs if len(run["steps"]["a"]["attempts"]) > 1]
    if again:
        raise Failed(f"{len(again)} of {COLD} attempts did not get their values at once, for example run {again[0]}")
    if not all(run["output"] == {"a": {"has": True}} for run in runs):
        raise Failed("some steps did not get the value of their .env file")
    took = sorted(map(seconds, runs))
    return f"half of them within {took[COLD // 2]:.1f} s, all within {took[-1]:.1f} s, with their steps' 2 s"


@check("The throughput setting of SSM parameters can be read")
def the_throughput_of_parameters(account: Account) -> str:
    setting: Json = account.client("ssm").get_service_setting(SettingId=HIGHER_THROUGHPUT)["ServiceSetting"]
    if setting["SettingValue"] == "true":
        return "higher throughput: 1,000 GetParameters a second"
    return "standard throughput: 40 GetParameters a second for the account in this region"


@check(f"A run of {WIDE} parallel steps reads at most {MOST_READ} units from the table", seconds=240, usd=0.01)
def a_wide_run_reads_little(account: Account) -> str:
    """CloudWatch reports the reads some minutes later. Other traffic of the environment counts too."""
    step = {"path": "file://./code", "runtime": {"type": "lambda", "handler": "app.step"}}
    steps: Json = {f"s{n}": step for n in range(WIDE)}
    steps["join"] = {**step, "after": [{"step": f"s{n}"} for n in range(WIDE)], "join": "all"}
    with TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        code.mkdir()
        (code / "app.py").write_text(_CODE)
        definition = {"id": "smoke-wide", "triggers": [{"event": "smoke/wide"}], "steps": steps}
        (Path(folder) / "stepwell.json").write_text(json.dumps(definition))
        account.push(Path(folder))
    began = datetime.now(UTC).replace(second=0, microsecond=0)
    run = run_of(account, {"name": "smoke/wide"}, 120)
    ended = datetime.now(UTC) + timedelta(minutes=1)

    def units() -> float | None:
        found = account.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/DynamoDB",
            MetricName="ConsumedReadCapacityUnits",
            Dimensions=[{"Name": "TableName", "Value": account.resources.table}],
            StartTime=began,
            EndTime=ended,
            Period=60,
            Statistics=["Sum"],
        )["Datapoints"]
        return sum(point["Sum"] for point in found) if found else None

    read = account.until("CloudWatch reports the reads", units, within_s=300, every_s=15)
    if read > 4 * MOST_READ:
        raise Skipped(f"{read:.0f} units were read, more than one run can read; repeat it without other traffic")
    if read > MOST_READ:
        raise Failed(f"a run of {WIDE} parallel steps read {read:.0f} units, more than {MOST_READ}; see ADR 8")
    return f"{read:.0f} read units for {WIDE} steps in {seconds(run):.1f} s"
