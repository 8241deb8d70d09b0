"""A worker of Faktory for Python: pip install pyfaktory, then FAKTORY_URL=tcp://:PASSWORD@HOST:7419 python worker.py"""

from pyfaktory import Client, Consumer


def add_to_crm(step_input):
    mail = step_input["steps"]["mail"]
    print(f"adding {mail['to']}", flush=True)


if __name__ == "__main__":
    with Client(role="consumer") as client:
        consumer = Consumer(client, queues=["default"], concurrency=2)
        consumer.register("AddToCrm", add_to_crm)
        consumer.run()
