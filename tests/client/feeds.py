"""The server's side of feeds, over scripted sockets."""

from typing import Any

from kanta_client.channel import Channel
from kanta_client.feed import Filters
from kanta_client.mirror import Mirror
from kanta_client.subscription import Subscription

from tests.client.sockets import FakeSocket, Line


async def nothing() -> Any:
    raise AssertionError("nobody asked for a former value")


def subscription(channel: Channel, since: int | str | None = None, **members: Any) -> Subscription:
    return Subscription(
        channel, Filters("/p"), since, members.get("whole", False), None, members.get("former", nothing)
    )


def mirror(channel: Channel, among: list[Any] | None = None, type: Any = None) -> Mirror[Any]:
    return Mirror(channel, "/p", ("p",), type, [] if among is None else among)


def change(rev: int, **members: Any) -> dict[str, Any]:
    return {"event": "change", "rev": rev, "cursor": f"{rev}-c", "ts": "t", "a": "put", "diff": {"n": rev}, **members}


class Log:
    """The server's side of feeds: each revision sets `n`; told when it is subscribed, or `more` is called."""

    def __init__(self) -> None:
        self.subs: dict[int, FakeSocket] = {}
        self.refuse = ""
        self.whole_again = False

    def __call__(self, socket: FakeSocket, request: dict[str, Any]) -> None:
        rev = socket.line.rev
        match request["op"]:
            case "subscribe" if self.refuse:
                socket.refuse(request, self.refuse, 409, oldest=7)
            case "subscribe":
                since = request.get("since")
                begin = rev if since is None else int(str(since).partition("-")[0])
                answer = {"id": request["id"], "sub": request["id"], "rev": begin, "cursor": f"{begin}-c"}
                if request["value"] and (since is None or self.whole_again):
                    answer = {
                        **answer,
                        "rev": rev,
                        "cursor": f"{rev}-c",
                        "value": {"n": rev},
                        "reset": self.whole_again,
                    }
                    begin = rev
                self.subs[request["id"]] = socket
                # in one message with the answer, as a server may
                socket.say(answer, *[{"sub": request["id"], **change(each)} for each in range(begin + 1, rev + 1)])
            case "unsubscribe":
                self.subs.pop(request["sub"])
                socket.say({"id": request["id"]})
            case "changes":
                since, until = int(str(request["since"]).partition("-")[0]), request.get("until", rev)
                found = [change(each) for each in range(since + 1, min(until, rev) + 1)]
                socket.say(
                    {"id": request["id"], "rev": rev, "changes": found[-1:] if "order" in request else found[:1]}
                )
            case _:
                socket.answer(request)

    def more(self, line: Line, count: int = 1) -> None:
        """Commit changes elsewhere and tell all feeds of them."""
        for _ in range(count):
            line.rev += 1
            for sub, socket in self.subs.items():
                if not socket.closed:
                    socket.say({"sub": sub, **change(line.rev)})

    def end(self, code: str) -> None:
        """End all feeds with an error."""
        for sub, socket in list(self.subs.items()):
            del self.subs[sub]
            socket.say({"sub": sub, "event": "error", "error": {"code": code, "status": 410, "detail": code}})


async def follow() -> tuple[Log, Line, Channel]:
    log = Log()
    line = Line(log)
    return log, line, line.channel()


async def subs(line: Line, log: Log) -> list[tuple[int, FakeSocket]]:
    await line.until(lambda: log.subs)
    return list(log.subs.items())
