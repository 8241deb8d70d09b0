"""The tables of docs/operate/cost.md about other products and about prices. The first row of each is the header."""

from __future__ import annotations

import aws_peers as peers
from aws_bill import usage
from aws_dollars import PAYLOADS, RATES, Bill, Rows
from aws_peers import PEERS, Work
from aws_prices import MONTH_S, PRICES, READ, Price, total
from aws_tables import money


def _peer_works(bill: Bill) -> dict[str, tuple[Work, float]]:
    """The workloads that are compared with other products, each with Stepwell's price in batches of one."""
    per = {title: total(bill.run(name, 1)) for title, name in PAYLOADS.items()}
    kb = {"0.2 KB": 0.2, "1.5 KB": 1.5, "4 KB": 4.0}
    works = {f"three steps, {title}": (Work(3, kb[title]), price) for title, price in per.items()}
    works["ten steps, 0.2 KB"] = (Work(10), total(bill.run("ten steps", 1)))
    wide = total(usage(bill.results["growth"]["parallel"]["999"], 10, bill.production))
    works["1,000 steps, 999 of them in parallel"] = (Work(1000), wide)
    waited = total(usage(bill.results["waiting"]["three days"], 10, bill.production)) + bill.looked_after(3)
    works["two steps with a wait of three days, batches of ten"] = (Work(2, wait_days=3), waited)
    return works


def peers_table(bill: Bill) -> Rows:
    rows = [["$ per million runs", "Stepwell", *PEERS]]
    for title, (work, own_price) in _peer_works(bill).items():
        rows.append([title, f"**{money(own_price)}**", *(money(price(work)) for price in PEERS.values())])
    return rows


def months_table(bill: Bill) -> Rows:
    rows = [["$ per month, three steps each", "Stepwell", "`profile=dev`", *PEERS]]
    for title, rate in {"no events": 0.0, **RATES}.items():
        runs = rate * MONTH_S
        own_prices = [
            sum((bill.month(rate, env) if rate else bill.idle(env)).values()) for env in (bill.production, bill.dev)
        ]
        others = [peers.month(peer, Work(3), runs) for peer in PEERS]
        rows.append([title, f"**{money(own_prices[0])}**", money(own_prices[1]), *map(money, others)])
    return rows


def prices_table(bill: Bill) -> Rows:
    return [["", "$", "per", "page", f"source, on {READ}"], *(_price(name, price) for name, price in PRICES.items())]


def peer_prices_table(bill: Bill) -> Rows:
    rows = [["", "$", "per", "page", f"source, on {READ}"]]
    return rows + [_price(name, price) for name, prices in peers.PRICES.items() for price in prices]


def _price(name: str, price: Price) -> list[str]:
    return [name, f"{price.dollars:g}", price.unit, f"[{price.url.removeprefix('https://')}]({price.url})", price.how]


def assumed_table(bill: Bill) -> Rows:
    rows = [["", "assumptions", "needed in addition, not included"]]
    return rows + [[name, text, peers.BESIDES.get(name, "–")] for name, text in peers.ASSUMED.items()]
