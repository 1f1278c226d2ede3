"""A worker's metrics in a process of its own: settles and answers as the lines on its standard input say.

settle N     settles N requests
scrape       answers what a scrape would, its size in bytes on the line before
close        ends in good order
"""

import sys

from gateway.monitor.metrics import Metrics
from tests.ledger.samples import entry


def main() -> None:
    metrics = Metrics()
    metrics.in_flight.inc()
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        for n in range(int(number or 0)):
            metrics.settled(entry(f"call-{n}"))
            metrics.refused(404)
        if word == "close":
            metrics.close()
            return
        answer = metrics.render() if word == "scrape" else b""
        print(len(answer), flush=True)
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
