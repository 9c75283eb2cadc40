"""What goes over the network, by aiohttp: the WebSocket's messages, and requests over HTTP for the rest.

Imported when the first connection is made, because importing aiohttp takes longer than everything else.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from kanta_client.address import Address
from kanta_client.errors import refusal
from kanta_client.link import Lost
from kantad.values.content import decode_json

CONNECT = 10.0  # seconds for a connection to be made
_FAILED = (aiohttp.ClientError, OSError, TimeoutError)


class AioSocket:
    """A WebSocket; see `Socket`."""

    def __init__(self, web_socket: "aiohttp.ClientWebSocketResponse[bool]") -> None:
        self.web_socket = web_socket

    async def send(self, message: bytes) -> None:
        """See `Socket`."""
        try:
            await self.web_socket.send_frame(message, aiohttp.WSMsgType.TEXT)
        except _FAILED as error:
            raise Lost(str(error)) from error

    async def receive(self) -> bytes:
        """See `Socket`."""
        message = await self.web_socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            data: bytes = message.data  # bytes, by decode_text=False
            return data
        code = self.web_socket.close_code
        raise Lost(f"the connection is closed ({code})", code)

    async def close(self) -> None:
        """See `Socket`."""
        await self.web_socket.close()


class Incoming:
    """An answer that comes part by part; see `Http.stream`."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer, self.status, self.headers = answer, answer.status, answer.headers

    async def problem(self) -> Any:
        """The whole body, decoded; raises `Lost`."""
        try:
            return _json(await self.answer.read())
        except _FAILED as error:
            raise Lost(str(error) or type(error).__name__) from error

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes; raises `Lost` where it is cut off, or nothing comes for too long."""
        content = self.answer.content
        while True:
            try:
                part = await content.readany()
            except _FAILED as error:
                raise Lost(str(error) or type(error).__name__) from error
            if not part:
                return
            yield part


class Http:
    """The connections to one server. One event loop's."""

    def __init__(self, address: Address, *, ssl: Any = True) -> None:
        self.address = address
        connector = aiohttp.UnixConnector(address.unix) if address.unix else aiohttp.TCPConnector(ssl=ssl)
        self.session = aiohttp.ClientSession(connector=connector, headers=address.headers)

    async def dial(self) -> AioSocket:
        """A new WebSocket; raises `Lost`, and `Refused` where trying again would not help."""
        patience = aiohttp.ClientTimeout(total=CONNECT)
        try:
            # aiohttp's own limits of size are off: the first value of a feed may be the whole database
            web_socket = await self.session.ws_connect(
                self.address.url + "/v1/ws",
                max_msg_size=0,
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except aiohttp.WSServerHandshakeError as error:
            raise await self._refused(error, patience) from error
        except _FAILED as error:
            raise Lost(str(error) or type(error).__name__) from error
        return AioSocket(web_socket)

    async def _refused(self, error: aiohttp.WSServerHandshakeError, patience: aiohttp.ClientTimeout) -> Exception:
        """Why a handshake was refused, as the server tells it when asked over HTTP."""
        if error.status in (429, 500, 502, 503, 504):
            return Lost(f"the server refuses connections ({error.status})")
        try:
            async with self.session.get(self.address.url + "/v1/ws", timeout=patience) as answer:
                problem = _json(await answer.read())
        except _FAILED as failure:
            return Lost(str(failure))
        told = isinstance(problem, dict) and problem.get("status") == error.status
        return refusal(problem if told else {"status": error.status, "code": "no_route", "detail": error.message})

    async def ask(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], seconds: float
    ) -> tuple[int, Any]:
        """The status and the decoded body of an answer; raises `Lost`."""
        url = URL(self.address.url + target, encoded=True)  # nothing is normalised: `..` is a key
        patience = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self.session.request(method, url, data=body, headers=headers, timeout=patience) as answer:
                return answer.status, _json(await answer.read())
        except _FAILED as error:
            raise Lost(str(error) or type(error).__name__) from error

    @asynccontextmanager
    async def stream(self, target: str, seconds: float, silence: float) -> AsyncIterator[Incoming]:
        """The answer to a GET, which begins within `seconds`; its body may be silent for `silence`. Raises `Lost`."""
        # a coding on the way would have another length
        patience, headers = aiohttp.ClientTimeout(total=None, sock_read=silence), {"Accept-Encoding": "identity"}
        request = self.session.get(self.address.url + target, headers=headers, timeout=patience)
        try:
            async with asyncio.timeout(seconds):
                answer = await request
        except _FAILED as error:
            raise Lost(str(error) or type(error).__name__) from error
        try:
            yield Incoming(answer)
        finally:
            answer.close()  # what is not read to its end is not worth keeping the connection

    async def close(self) -> None:
        """Close all connections."""
        await self.session.close()


def _json(data: bytes) -> Any:
    """What a body says; None where it is no JSON, as a proxy's pages are."""
    try:
        return decode_json(data)
    except ValueError:
        return None
