"""Writers that journal what they asked and what was answered, and what must be true of the file then.

Each writer owns two places: `/values/w<n>`, set without a key to a text that is never used twice,
and `/lists/w<n>`, to which numbers are appended with an idempotency key each. A keyed request
whose answer was lost is sent again with the same key, across restarts, until it is answered; so
the list must hold each number exactly once. A value whose answer was lost may be there or not.
"""

import asyncio
import random
from typing import Any

from tests.crash.process_kit import LOST, Client, Process, changes

WRITERS = 8


class Journal:
    """What all the writers know; `revisions` maps an acknowledged revision to what it must hold."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.writers = [Writer(self, number) for number in range(WRITERS)]
        self.asked: set[str] = set()
        self.revisions: dict[int, str] = {}

    @property
    def acknowledged(self) -> int:
        """How many writes were acknowledged so far."""
        return len(self.revisions)

    def note(self, rev: int, what: str) -> None:
        """A change was acknowledged under this revision, which no other change may have."""
        assert self.revisions.setdefault(rev, what) == what

    async def begin(self, process: Process) -> None:
        """Make the lists, so that a POST appends."""
        self.asked.add("lists")
        lists = {writer.name: [] for writer in self.writers}
        answer = await process.ask("PUT", "/v1/data/lists", lists, Idempotency_Key="lists")
        self.note(answer.body["rev"], "lists")

    async def write(self, process: Process) -> None:
        """Let all the writers write until the process is gone or refuses."""
        await asyncio.gather(*(writer.write(process) for writer in self.writers))

    async def settle(self, process: Process) -> None:
        """After a restart: compare what is there, and have what is in doubt answered."""
        root = await process.root()
        for writer in self.writers:
            writer.compare(root)
        await asyncio.gather(*(writer.retry(process) for writer in self.writers))
        root = await process.root()
        for writer in self.writers:
            writer.compare(root)
            assert root.get("lists", {}).get(writer.name, []) == list(range(writer.appended))

    def check_file(self, path: str, format: str | None = None) -> int:
        """Hold every record of the file against the journal; how many changes there are."""
        seen: set[str] = set()
        found = changes(path, format)
        for rev, change in found.items():
            what = change.id or value_of(change.diff)
            assert what in self.asked, f"a change that nobody asked for: {change}"
            assert what not in seen, f"twice in the file: {what}"
            assert self.revisions.get(rev, what) == what
            seen.add(what)
        missing = {rev for rev in self.revisions if rev not in found}
        assert not missing
        return len(found)


def value_of(diff: Any) -> str:
    """The text that a change of `/values` sets."""
    while type(diff) is dict:
        diff = next(iter(diff.values()))
    return str(diff)


class Writer:
    """One writer; `doubtful` is what was asked and not answered."""

    def __init__(self, journal: Journal, number: int) -> None:
        self.journal, self.number, self.name = journal, number, f"w{number}"
        self.count = 0
        self.value: str | None = None  # acknowledged last
        self.doubtful_value: str | None = None
        self.appended = 0  # as many are acknowledged
        self.doubtful_append = False

    async def write(self, process: Process) -> None:
        """Write until the connection is lost or a write is refused."""
        try:
            client = await process.client()
        except OSError:
            return
        try:
            while await (self.set_value(client) if self.journal.random.random() < 0.6 else self.append(client)):
                pass
        except LOST:
            return
        finally:
            client.close()

    async def set_value(self, client: Client) -> bool:
        """Set a new value; False where it was refused."""
        self.count += 1
        text = f"{self.name}-{self.count}"
        self.journal.asked.add(text)
        self.doubtful_value = text
        query = self.journal.random.choice(["", "", "?ack=written", "?user=u"])
        answer = await client.ask("PUT", f"/v1/data/values/{self.name}{query}", text)
        if answer.status != 200:
            assert answer.status in (503, 507)
            if answer.status == 507 or answer.body["code"] == "shutting_down":
                self.doubtful_value = None
            return False
        assert answer.body["changed"]
        self.journal.note(answer.body["rev"], text)
        self.value, self.doubtful_value = text, None
        return True

    async def append(self, client: Client) -> bool:
        """Append the next number under its key; False where it was refused."""
        key = f"{self.name}:{self.appended}"
        self.journal.asked.add(key)
        again, self.doubtful_append = self.doubtful_append, True
        answer = await client.ask("POST", f"/v1/data/lists/{self.name}", self.appended, Idempotency_Key=key)
        if answer.status != 201:
            assert answer.status in (503, 507), answer
            return False
        assert again or not answer.body.get("replayed")
        assert answer.body["key"] == str(self.appended)
        self.journal.note(answer.body["rev"], key)
        self.appended, self.doubtful_append = self.appended + 1, False
        return True

    async def retry(self, process: Process) -> None:
        """Send what is in doubt again, with its key."""
        if self.doubtful_append:
            client = await process.client()
            assert await self.append(client)
            client.close()

    def compare(self, root: Any) -> None:
        """What a restart shows of the value is the last acknowledged one, or the one in doubt."""
        found = root.get("values", {}).get(self.name)
        assert found in (self.value, self.doubtful_value), (found, self.value, self.doubtful_value)
        self.value, self.doubtful_value = found, None
        listed = root.get("lists", {}).get(self.name, [])
        assert listed in (list(range(self.appended)), list(range(self.appended + self.doubtful_append)))
