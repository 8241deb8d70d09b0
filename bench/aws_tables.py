"""The tables of docs/operate/cost.md with Stepwell's costs. The first row of each is the header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_bill import (
    MEMORY_MB,
    SYSTEM_LOG,
    Environment,
    handler_usage,
    kept_logs,
    metrics,
    storage,
    usage,
    without_handlers,
)
from aws_dollars import PAYLOADS, RATES, WAITS, Bill, Rows
from aws_prices import (
    ADDRESS_HOUR,
    GB_HOUR,
    GIB,
    KEY,
    KEY_REQUEST,
    LAMBDA_GB_S,
    LAMBDA_REQUEST,
    LOG_GB,
    MILLION,
    MONTH_S,
    QUEUE_REQUEST,
    S3_GET,
    S3_PUT,
    TRACE,
    VCPU_HOUR,
    Usage,
    dollars,
    total,
)

STEP_GB, STEP_MS = 0.125, 100  # default memory and duration of a step's own Lambda


def money(amount: float | None) -> str:
    return "not possible" if amount is None else f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"


def bill_table(bill: Bill) -> Rows:
    rows = [
        [
            "per month with",
            "runs",
            "storage",
            "fixed costs",
            "**total**",
            "total, `profile=dev`",
            "your steps, at least",
        ]
    ]
    at_rest = [sum(bill.idle(env).values()) for env in (bill.production, bill.dev)]
    rows.append(["no events", "–", "–", money(at_rest[0]), f"**{money(at_rest[0])}**", money(at_rest[1]), "–"])
    for title, rate in RATES.items():
        month, dev = bill.month(rate, bill.production), bill.month(rate, bill.dev)
        millions = rate * MONTH_S / MILLION
        runs = "" if title.endswith("runs") else f" ({millions:,.1f} million runs)"
        cells = [
            money(month["runs"]),
            money(month["kept"]),
            money(month["standing"]),
            f"**{money(sum(month.values()))}**",
        ]
        rows.append([f"{title}{runs}", *cells, money(sum(dev.values())), money(3 * _step(STEP_MS) * millions)])
    return rows


def traffic_table(bill: Bill) -> Rows:
    rows = [
        [
            "three steps",
            "batching window",
            "events per batch",
            "outcomes per batch",
            "$ per million runs",
            "empty receives, $ per month",
        ]
    ]
    for title, rate in list(RATES.items())[2:]:
        for window in (0, 1):
            ends = [bill.at(rate, window, most=most) for most in (False, True)]
            rows.append(
                [
                    title,
                    f"{window} s",
                    _between([end.events.batch for end in ends], "{:.1f}"),
                    _between([end.outcomes.batch for end in ends], "{:.1f}"),
                    _between([total(end.usage) for end in ends], "{:.2f}"),
                    f"{ends[0].empty / MILLION * QUEUE_REQUEST.dollars:.2f}",
                ]
            )
    return rows


def _between(numbers: Sequence[float], form: str) -> str:
    low, high = form.format(min(numbers)), form.format(max(numbers))
    return low if low == high else f"{low} to {high}"


def services_table(bill: Bill) -> Rows:
    columns = {
        "an event that starts nothing": ("nothing", 10),
        "the same, batches of one": ("nothing", 1),
        "one step": ("one step", 10),
        "one step, batches of one": ("one step", 1),
        "three steps": ("three steps", 10),
        "three steps, batches of one": ("three steps", 1),
        "three steps, `ingest: direct`": ("direct", 10),
        "`direct`, batches of one": ("direct", 1),
    }
    bills = [dollars(bill.run(name, batch)) for name, batch in columns.values()]
    rows = [["", *columns], *([service, *(f"{costs[service]:.2f}" for costs in bills)] for service in bills[0])]
    return [*rows, ["**total**", *(f"**{sum(costs.values()):.2f}**" for costs in bills)]]


def payload_table(bill: Bill) -> Rows:
    rows = [
        [
            "three steps",
            "batches of ten",
            "batches of one",
            "write units",
            "message to `advance`, KB",
            "left in the table, KB",
            "storage, $ per month",
        ]
    ]
    for title, name in PAYLOADS.items():
        ten, one = bill.run(name, 10), bill.run(name, 1)
        counted = bill.results["workloads"][f"{name}, batch 10"]
        stored = bill.stored(name, 10)
        rows.append(
            [
                f"{title} each",
                money(total(ten)),
                money(total(one)),
                f"{ten.write_units:.1f}",
                f"{counted['queues']['outcomes']['bytes'] / 1024:.1f}",
                f"{stored / 1024:.1f}",
                money(storage(stored, bill.production)),
            ]
        )
    return rows


def waiting_table(bill: Bill) -> Rows:
    rows = [["two steps, with a wait for", "runs", "sweeper", "**total**", "more than without a wait"]]
    plain = total(usage(bill.results["growth"]["sequence"]["2"], 10, bill.production))
    for title, days in WAITS.items():
        run = total(usage(bill.results["waiting"][title], 10, bill.production))
        looked = bill.looked_after(days)
        rows.append([title, money(run), money(looked), f"**{money(run + looked)}**", money(run + looked - plain)])
    run = total(usage(bill.results["waiting"]["an event"], 10, bill.production))
    looked = bill.looked_after(3)
    event = total(bill.run("nothing", 10))
    title = "an event that comes after three days, including the event"
    rows.append([title, money(run), money(looked), f"**{money(run + looked)}**", money(run + looked - plain - event)])
    return rows


def storage_table(bill: Bill) -> Rows:
    rows = [
        [
            "of each",
            "KB in the table",
            "$ per month and million",
            "KB of logs",
            "$ for ingestion",
            "$ per month for storage",
        ]
    ]
    names = {"an event that starts nothing": "nothing", "a run of one step": "one step"}
    names |= {f"a run of three steps, {title}": name for title, name in PAYLOADS.items()}
    names["a run of ten steps"] = "ten steps"
    for title, name in names.items():
        stored, logged = bill.stored(name, 1), bill.run(name, 1).log_bytes
        taken = logged * MILLION / GIB * LOG_GB.dollars
        cells = [
            f"{stored / 1024:.1f}",
            money(storage(stored, bill.production)),
            f"{logged / 1024:.1f}",
            money(taken),
        ]
        rows.append([title, *cells, money(kept_logs(logged))])
    return rows


def idle_table(bill: Bill) -> Rows:
    default, dev = bill.idle(bill.production), bill.idle(bill.dev)
    texts = {"alarms": f"{bill.production.counted['alarms']} alarms"}
    rows = [["without events, $ per month", "default", "`profile=dev`"]]
    rows += [[texts.get(name, name), f"{default[name]:.2f}", f"{dev[name]:.2f}"] for name in default]
    rows.append(["**total**", *(f"**{sum(costs.values()):.2f}**" for costs in (default, dev))])
    count = bill.production.counted["metrics"]
    return [
        *rows,
        [
            f"with traffic: {count} custom metrics, at most",
            *(f"{metrics(e):.2f}" for e in (bill.production, bill.dev)),
        ],
    ]


def _step(ms: float, gigabytes: float = STEP_GB) -> float:
    """Dollars per million invocations of a step's own Lambda, including what Lambda logs."""
    logs = SYSTEM_LOG * MILLION / GIB * LOG_GB.dollars
    return LAMBDA_REQUEST.dollars + gigabytes * ms / 1000 * LAMBDA_GB_S.dollars + logs


def steps_table(bill: Bill) -> Rows:
    rows = [["a million steps, 128 MB, arm64", "request", "time", "log lines of Lambda", "**total**"]]
    logs = SYSTEM_LOG * MILLION / GIB * LOG_GB.dollars
    for title, ms in (("1 ms", 1), ("100 ms", 100), ("1 s", 1000)):
        time = STEP_GB * ms / 1000 * LAMBDA_GB_S.dollars
        rows.append([title, f"{LAMBDA_REQUEST.dollars:.2f}", f"{time:.2f}", f"{logs:.2f}", f"**{_step(ms):.2f}**"])
    cold = STEP_GB * 0.2 * LAMBDA_GB_S.dollars
    return [*rows, ["plus, for each cold start of 200 ms", "–", f"{cold:.2f}", "–", f"**{cold:.2f}**"]]


def savings_table(bill: Bill) -> Rows:
    small = Environment(bill.production.counted, {**MEMORY_MB, "route": 512, "advance": 512})
    single = bill.results["workloads"]["three steps, batch 1"]
    of_request = without_handlers(single) + handler_usage("ingest", single["handlers"]["ingest"], bill.production)
    of_request.bus_events = of_request.queue_requests = 0
    default = total(bill.run("three steps", 1))
    costs = {
        "default settings": default,
        "`ingest: direct`": total(bill.run("direct", 1)),
        "`memory: 512`: some ms slower, cold starts half a second slower": total(bill.run("three steps", 1, small)),
        "ten events per request": default - 0.9 * total(of_request),
        "`batching_window: 1`, at 10 events per second": total(bill.at(10, 1).usage),
    }
    return [
        ["a million runs of three steps, in batches of one", "$"],
        *([text, money(cost)] for text, cost in costs.items()),
    ]


def options_table(bill: Bill) -> Rows:
    minute = (0.25 * VCPU_HOUR.dollars + 0.5 * GB_HOUR.dollars + ADDRESS_HOUR.dollars) / 60 * MILLION
    files = 2 * S3_PUT.dollars + 2 * S3_GET.dollars
    windows, users = MONTH_S / 300, 2 + 2 * len(("table", "events", "outcomes"))
    return [
        ["off by default", "$"],
        ["`kms_key`: the key, per month", f"{KEY.dollars:.2f}"],
        [
            f"`kms_key`: requests for data keys, per month, at most: some {users} users, every five minutes",
            f"{windows * users / MILLION * KEY_REQUEST.dollars:.2f}",
        ],
        ["`tracing`: one trace per second, per month, at most", f"{MONTH_S / MILLION * TRACE.dollars:.2f}"],
        ["`tracing`: 5% of further invocations, per million invocations", f"{0.05 * TRACE.dollars:.2f}"],
        [
            "a million container steps: Fargate's minimum of one minute, with 0.25 vCPU, 0.5 GB, and an address",
            f"{minute:.0f}",
        ],
        ["a million container steps: input and report in S3, two PUT and two GET", f"{files:.2f}"],
    ]


def growth_table(bill: Bill) -> Rows:
    rows = [["steps", "$ per million runs", "write units", "read units", "writes of the run's item"]]
    for steps, counted in bill.results["growth"]["sequence"].items():
        rows.append([f"{steps} in sequence", *_growth_cells(bill, counted), str(int(steps) + 1)])
    for steps, counted in bill.results["growth"]["parallel"].items():
        rows.append([f"{steps} in parallel, joined", *_growth_cells(bill, counted), str(counted["writes_of_run"])])
    return rows


def _growth_cells(bill: Bill, counted: Any) -> list[str]:
    used = usage(counted, 10, bill.production)
    return [money(total(used)), f"{used.write_units:,.1f}", f"{used.read_units:,.1f}"]


def flat_table(bill: Bill) -> Rows:
    titles = list(bill.results["flat"])
    texts = {"go": "an event that starts one step, and its run", "paid": "an event whose name is waited for"}
    rows = [["DynamoDB, $ per million", *titles]]
    for name, text in texts.items():
        usages = [usage(bill.results["flat"][title][name], 10, bill.production) for title in titles]
        rows.append([text, *(money(total(Usage(write_units=u.write_units, read_units=u.read_units))) for u in usages)])
    return rows


def paths_table(bill: Bill) -> Rows:
    paths = bill.results["paths"]
    rows = [["CPU ms of an invocation", "ingest", "route", "advance"]]
    for title, name in {
        "an event that starts nothing": "nothing",
        "one step": "one step",
        "three steps": "three steps",
    }.items():
        for batch in (10, 1):
            handlers = bill.results["workloads"][f"{name}, batch {batch}"]["handlers"]
            cpu = [f"{handlers[h]['cpu_ms']:.1f}" if h in handlers else "–" for h in ("ingest", "route", "advance")]
            rows.append([f"{title}, {'batch of ten' if batch == 10 else 'batch of one'}", *cpu])
    return [
        *rows,
        [
            "sequential requests: event to step, outcome to next step",
            "–",
            str(paths["to_first_step"]),
            str(paths["to_next_step"]),
        ],
    ]
