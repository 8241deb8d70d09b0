"""An app that knows nothing of Stepwell. Its worker: celery -A shop worker"""

import os

from celery import Celery

url = os.environ.get("BROKER", "redis://localhost:6379/0")
app = Celery("shop", broker=url, backend=url)


@app.task(name="shop.send_email")
def send_email(address: str, subject: str) -> dict[str, str]:
    return {"to": address, "subject": subject}
