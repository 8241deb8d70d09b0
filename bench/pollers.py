"""Requests the newest runs of a server over several connections without a pause: python pollers.py PORT CONNECTIONS

Prints a line when all are connected, and the number of answers when it is terminated.
"""

from __future__ import annotations

import asyncio
import signal
import sys

REQUEST = b"GET /v1/runs?limit=50 HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def poll(port: int, connected: asyncio.Barrier, answers: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await connected.wait()
    while True:
        writer.write(REQUEST)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        answers[0] += 1


async def main(port: int, connections: int) -> None:
    answers, connected, over = [0], asyncio.Barrier(connections + 1), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    tasks = [asyncio.create_task(poll(port, connected, answers)) for _ in range(connections)]
    await connected.wait()
    print("connected", flush=True)
    await over.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(answers[0], flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
