"""One gateway worker that calls as fast as it can, as a process of its own, with a clock that is wrong and jumps.

Its limit script is the shipped one, but numbers calls by Redis' microseconds, so that receipts tell them. Prints
`{key: [microseconds of each admission]}` and how many calls were refused.
"""

import json
import random
import sys
import time
from hashlib import sha1

import gevent

from gateway_contract import headers
from gateway_contract.receipts import Place, parse_secrets, verify_receipt
from kong_plugins.parts import limit_script
from kong_plugins.parts.redis_connection import encode_command

ADMITS = "return {ADMITTED, now_ms, call_number,"
GREENLETS = 12


def main(url: str, secret: str, texts: list[str], *, skew_seconds: float, seconds: float) -> None:
    script = limit_script.SCRIPT.replace(ADMITS, "return {ADMITTED, now_ms, now,")
    assert script != limit_script.SCRIPT
    limit_script.SCRIPT_SHA = sha1(script.encode(), usedforsecurity=False).hexdigest()
    limit_script.LOAD_COMMAND = encode_command("SCRIPT", "LOAD", script)
    true_time = time.time
    time.time = lambda: true_time() + skew_seconds * random.choice((-1, 1, 2))
    # only now, since it takes the script with it
    from kong_plugins.parts import worker
    from kong_plugins.parts.settings import read_settings
    from kong_plugins.plugins import km_monetize
    from tests.plugins.fakes import PRODUCT, FakeKong

    worker._slot.worker = worker.Worker(read_settings({"KM_REDIS_URL": url, "KM_GATEWAY_SECRET": secret}))
    plugin = km_monetize.Plugin({"api_product": PRODUCT})
    secrets = parse_secrets(secret)
    admitted: dict[str, list[int]] = {text: [] for text in texts}
    codes: dict[str, int] = {}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()  # until all are ready
    end = time.monotonic() + seconds

    def call_on() -> None:
        while time.monotonic() < end:
            text = random.choice(texts)
            kong = FakeKong({"apikey": text})
            plugin.access(kong)
            codes[kong.code] = codes.get(kong.code, 0) + 1
            if kong.served:
                receipt = verify_receipt(kong.answer[headers.RECEIPT], place=Place.ANSWER, secrets=secrets)
                assert receipt is not None
                admitted[text].append(receipt.call_number)

    gevent.joinall([gevent.spawn(call_on) for _ in range(GREENLETS)], raise_error=True)
    worker.stop_worker()
    sys.stdout.write(json.dumps({"admitted": admitted, "codes": codes}))


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    main(
        given["url"],
        given["secret"],
        given["texts"],
        skew_seconds=given["skew_seconds"],
        seconds=given["seconds"],
    )
