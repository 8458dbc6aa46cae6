"""A program that reports events until it is killed, and says of each that it is reported."""

import sys

from kong_monetize_client import Client, Options

url, directory, token, first = sys.argv[1:]
options = Options(
    directory=directory, max_events=20, max_age_seconds=0.01, first_pause_seconds=0.01, longest_pause_seconds=0.05
)
client = Client(url, token, source="/shop", options=options)
number = int(first)
while True:
    event_id = client.report("sold", subject="acc_1", id=f"{number}", units={"transactions": number})
    sys.stdout.write(f"{event_id}\n")
    sys.stdout.flush()
    number += 1
