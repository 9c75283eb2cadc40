"""One update against the size of the state; memory a user; bytes an update; all from outside the process.

    python tests/bench/bench_flat.py --sizes 1000 10000 100000 1000000

For each size a fresh daemon is loaded with that many user objects (about 132 bytes of JSON each)
and updated by one client: PATCH of one field of a random user, durable. Printed are the median
of the server's CPU time an update (wall time is mostly the disk's), the median latency, the
resident memory a user, and the bytes an update takes in the file (snapshots apart).
"""

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def user(i: int) -> dict[str, object]:
    """A user of the comparison suite's shape."""
    return {
        "name": f"User Number {i}",
        "email": f"user{i}@example.com",
        "age": 18 + i % 70,
        "tags": [f"tag{i % 13}", f"group{i % 101}", "member"],
        "balance": round(i * 1.37 % 10000, 2),
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(size: int, updates: int, form: str) -> dict[str, float]:
    """The figures of one size."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data.kantadb")
        command = [sys.executable, "-m", "kantad", "--db", path, "--port", "0", "--format", form]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            ready = server.stderr.readline()
            port = int(ready.split("http://127.0.0.1:")[1].split()[0])
            empty = resident(server.pid)
            client = http.client.HTTPConnection("127.0.0.1", port)

            def ask(method: str, target: str, body: object) -> dict[str, object]:
                client.request(method, target, json.dumps(body), {"Content-Type": "application/json"})
                answer = client.getresponse()
                data = answer.read()
                assert answer.status == 200, (answer.status, data[:200])
                return dict(json.loads(data))

            for start in range(0, size, 10_000):
                ask(
                    "PATCH",
                    "/v1/data",
                    {"users": {f"u{i:07d}": user(i) for i in range(start, min(size, start + 10_000))}},
                )
            memory = (resident(server.pid) - empty) / size
            bytes_before = os.path.getsize(path)
            pick = random.Random(7)
            latencies = []
            cpu = cpu_seconds(server.pid)
            for _ in range(updates):
                began = time.perf_counter()
                ask("PATCH", f"/v1/data/users/u{pick.randrange(size):07d}", {"age": pick.randrange(10_000, 99_999)})
                latencies.append(time.perf_counter() - began)
            cpu = cpu_seconds(server.pid) - cpu
            snapshots = sum(len(line) for line in lines(path, bytes_before) if line.startswith(b"SNAPSHOT "))
            grown = os.path.getsize(path) - bytes_before - snapshots
            return {
                "users": size,
                "cpu_us": cpu / updates * 1e6,
                "p50_us": statistics.median(latencies) * 1e6,
                "memory_a_user": memory,
                "bytes_an_update": grown / updates,
            }
        finally:
            server.terminate()
            server.wait()


def lines(path: str, offset: int) -> list[bytes]:
    """The lines of a file from an offset on."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read().splitlines(keepends=True)


def main() -> None:
    """Measure each size, `--rounds` times in turn, and print medians and the ratio to the smallest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", default="json")
    asked = parser.parse_args()
    rows: dict[int, list[dict[str, float]]] = {size: [] for size in asked.sizes}
    for _ in range(asked.rounds):
        for size in asked.sizes:
            rows[size].append(measure(size, asked.updates, asked.format))
    smallest = statistics.median(row["cpu_us"] for row in rows[asked.sizes[0]])
    for size in asked.sizes:
        median = {key: statistics.median(row[key] for row in rows[size]) for key in rows[size][0]}
        print(
            {key: round(value, 1) for key, value in median.items()}, "cpu ratio", round(median["cpu_us"] / smallest, 2)
        )


if __name__ == "__main__":
    main()
