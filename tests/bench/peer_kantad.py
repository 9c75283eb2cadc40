"""kantad as a peer of the comparison suite: the same users, key choice and C load generator.

    PEERS=<folder of the peer scripts> python tests/bench/peer_kantad.py --peers 'redis;kantad' --n 10000 --rounds 5

Without PEERS there is nothing to compare with. Rounds are interleaved, so ratios hold when the
machine's speed drifts. Give `kantad,fast=0` for the plain path, `kantad,format=msgpack`, or
`kantad,ack=written`.
"""

import argparse
import json
import os
import random
import shutil
import sys
import urllib.request
from typing import Any

sys.path.insert(0, os.environ.get("PEERS", "."))

import run_all  # type: ignore[import-not-found]
import workload as w  # type: ignore[import-not-found]

__all__ = ["Peer", "w"]


class Peer:
    """One kantad process on a fresh file."""

    def __init__(self, **options: str) -> None:
        self.options = options
        self.name = "kantad" + "".join(f",{key}={value}" for key, value in options.items())

    def start(self) -> None:
        """Start on an empty folder and a free port."""
        self.port = w.free_port()
        self.folder = os.path.join(w.ROOT, f"kantad-{self.port}")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.file = os.path.join(self.folder, "data.kantadb")
        python = os.environ.get("KANTAD_PYTHON", sys.executable)
        command = [python, "-m", "kantad", "--db", self.file, "--port", str(self.port)]
        for flag in ("format", "ack"):
            if flag in self.options:
                command += [f"--{flag}", self.options[flag]]
        if self.options.get("fast") == "0":
            command.append("--no-fast-path")
        self.proc = w.Proc(command, self.port)
        self.tests: dict[str, object] = {}

    def load(self, n: int) -> None:
        """Put n users."""
        self.n = n
        for start in range(0, n, 20_000):
            users = {w.uid(i): w.user(i) for i in range(start, min(n, start + 20_000))}
            self.ask("PATCH", "/v1/data", {"users": users})
        self.ask("POST", "/v1/snapshot", None)

    def ask(self, method: str, path: str, body: object) -> object:
        """One request; the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def loads(self, n: int) -> dict[str, object]:
        """The load tests."""
        if self.tests:
            return self.tests
        kind = "update_durable" if self.options.get("ack", "durable") == "durable" else "update_relaxed"
        picks = w.picks(n)

        def patch(i: int, age: int) -> bytes:
            return bytes(w.http("PATCH", "/v1/data/users/" + w.uid(i), json.dumps({"age": age}), port=self.port))

        self.tests = {
            f"{kind}:http_patch": w.Load("http", self.port, [patch(i, age) for i, age in picks]),
            "read:http_get": w.Load(
                "http", self.port, [w.http("GET", "/v1/data/users/" + w.uid(i), port=self.port) for i, _ in picks]
            ),
        }
        up = [w.ws_upgrade("/v1/ws", self.port)]

        def change(
            j: int, place: int
        ) -> dict[str, object]:  # on every other lap another value: no write is for nothing
            i, age = picks[place % len(picks)]
            lap = place // len(picks)
            return {"id": j, "op": "transact", "path": "/users/" + w.uid(i), "diff": {"age": age + lap}}

        def get(j: int, place: int) -> dict[str, object]:
            return {"id": j, "op": "get", "path": "/users/" + w.uid(picks[place % len(picks)][0])}

        for test, make_one in ((kind, change), ("read", get)):
            laps = 2 * len(picks)
            singles = [w.ws_frame(json.dumps(make_one(j % 1000, j))) for j in range(laps)]
            self.tests[f"{test}:ws"] = w.Load("ws", self.port, singles, up)
            self.tests[f"{test}:ws_pipe16"] = w.Load("ws", self.port, singles, up, depth=16)
            for b in (16, 64):
                frames = [w.ws_frame(json.dumps([make_one(j, s * b + j) for j in range(b)])) for s in range(laps // b)]
                self.tests[f"{test}:ws_batch{b}"] = w.Load("ws", self.port, frames, up, per=b)
        return self.tests

    def fan(self) -> object:
        """The feed test: a writer on one WebSocket, a swarm of subscribers on others."""
        connection, chosen = w.Conn(self.port), random.Random(5)
        connection.send(w.ws_upgrade("/v1/ws", self.port))
        connection.until(b"\r\n\r\n")

        def send(sequence: int) -> None:
            path = "/users/" + w.uid(chosen.randrange(self.n))
            change = {"id": 1, "op": "transact", "path": path, "diff": {"age": f"@@@{sequence:012d}"}}
            connection.send(w.ws_frame(json.dumps(change)))

        def reply() -> None:
            head = connection.exact(2)
            connection.exact(head[1] if head[1] < 126 else int.from_bytes(connection.exact(2), "big"))

        def publish(sequence: int) -> None:
            send(sequence)
            reply()

        def burst(sequence: int, count: int) -> None:
            for number in range(count):
                send(sequence + number)
            for _ in range(count):
                reply()

        subscribe = w.ws_frame(json.dumps({"id": 1, "op": "subscribe"}))
        return w.Fan("ws", self.port, [w.ws_upgrade("/v1/ws", self.port), subscribe], publish, burst=burst)

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self.proc.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def make(spec: str) -> Any:
    """A peer of a spec, kantad or one of the suite's."""
    kind, *options = spec.split(",")
    if kind == "kantad":
        return Peer(**dict(option.split("=", 1) for option in options))
    return run_all.make(spec)


def main() -> None:
    """Start and load every peer, then run the tests in turn, round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="redis;kantad")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=float, default=1.5)
    parser.add_argument("--conns", type=int, nargs="*", default=[64])
    parser.add_argument("--fan", type=int, nargs="*", default=[], help="subscribers of the feed test")
    parser.add_argument(
        "--tests",
        nargs="*",
        default=["update_durable:hset", "update_durable:http_patch", "read:get_json", "read:http_get"],
    )
    asked = parser.parse_args()
    w.build_lg()
    peers = [make(spec) for spec in asked.peers.split(";")]
    rows = []
    try:
        for peer in peers:
            peer.start()
            peer.load(asked.n)
        for number in range(asked.rounds):
            for conns in asked.fan:
                for peer in peers:
                    if (fan := peer.fan()) is not None:
                        rows.append(w.run_fan(peer, fan, conns, rnd=number))
            for conns in asked.conns:
                for test in asked.tests:
                    for peer in peers:
                        if test in peer.loads(asked.n):
                            rows.append(w.run_load(peer, test, asked.n, conns, asked.secs, number))
    finally:
        for peer in peers:
            peer.stop()
    w.summary(rows)


if __name__ == "__main__":
    main()
