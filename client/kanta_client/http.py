"""What goes over the network, by aiohttp: the WebSocket's messages, and requests over HTTP for the rest.

Imported when the first connection is made, because importing aiohttp takes longer than everything else.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from yarl import URL

from kanta_client.address import Address
from kanta_client.errors import TRY_AGAIN, problem_of, refusal
from kanta_client.link import Lost
from kantad.values.content import decode_json

CONNECT: Final = 10.0  # seconds for a connection to be made
CLOSE: Final = 2.0  # seconds for a connection to be closed in good order
BYTES_RECEIVED: Final = 128  # where Linux's struct tcp_info has tcpi_bytes_received, 64 bits (linux/tcp.h, since 4.1)
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
        try:
            message = await self.web_socket.receive()
        except _FAILED as error:
            raise Lost(_why(error)) from error
        if message.type is aiohttp.WSMsgType.TEXT:
            data: bytes = message.data  # bytes, by decode_text=False
            return data
        code = self.web_socket.close_code
        raise Lost(f"the connection is closed ({code})", code)

    def arrived(self) -> int:
        """See `Socket`: bytes, as the kernel counts them for TCP; else 0."""
        own = self._socket()
        if own is None:
            return 0
        with own:
            try:
                told = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_RECEIVED + 8)
            except (OSError, AttributeError):
                return 0
        return int(struct.unpack_from("Q", told, BYTES_RECEIVED)[0]) if len(told) >= BYTES_RECEIVED + 8 else 0

    async def close(self) -> None:
        """See `Socket`."""
        own = self._socket()
        try:
            async with asyncio.timeout(CLOSE):
                await self.web_socket.close()
        except _FAILED:
            pass
        finally:
            if own is not None:  # a peer that takes nothing would keep the transport for as long as it likes
                with contextlib.suppress(OSError):
                    own.shutdown(socket.SHUT_RDWR)
                own.close()

    def _socket(self) -> socket.socket | None:
        """The socket, as a duplicate: what uvloop gives can do less."""
        given = self.web_socket.get_extra_info("socket")
        try:
            return None if given is None else socket.socket(fileno=socket.dup(given.fileno()))
        except OSError:
            return None


class Incoming:
    """An answer that comes part by part; see `Http.stream`."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer, self.status, self.headers = answer, answer.status, answer.headers

    async def problem(self) -> Any:
        """The whole body, decoded; raises `Lost`."""
        try:
            return _json(await self.answer.read())
        except _FAILED as error:
            raise Lost(_why(error)) from error

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes; raises `Lost` where it is cut off, or nothing comes for too long."""
        content = self.answer.content
        while True:
            try:
                part = await content.readany()
            except _FAILED as error:
                raise Lost(_why(error)) from error
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
            # aiohttp's own limits of size are off: the first value of a feed may be the whole database. The timeout of
            # a session is no limit of the handshake, if the peer has accepted the connection and says nothing.
            async with asyncio.timeout(CONNECT):
                web_socket = await self.session.ws_connect(
                    self.address.url + "/v1/ws",
                    max_msg_size=0,
                    decode_text=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise await self._refused(error, patience) from error
        except _FAILED as error:
            raise Lost(_why(error)) from error
        return AioSocket(web_socket)

    async def _refused(self, error: aiohttp.WSServerHandshakeError, patience: aiohttp.ClientTimeout) -> Exception:
        """Why a handshake was refused, as the server tells it when asked over HTTP."""
        try:
            async with self.session.get(self.address.url + "/v1/ws", timeout=patience) as answer:
                told = _json(await answer.read())
        except _FAILED as failure:
            return Lost(str(failure))
        problem = problem_of(error.status, told)
        if problem is None or problem["code"] in TRY_AGAIN:
            return Lost(f"the server refuses connections (status {error.status})")
        return refusal(problem)

    async def ask(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], seconds: float
    ) -> tuple[int, Any]:
        """The status and the decoded body of an answer; raises `Lost`."""
        url = URL(self.address.url + target, encoded=True)  # nothing is normalised: `..` is a key
        patience = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self.session.request(
                method, url, data=body, headers=headers, timeout=patience, allow_redirects=False
            ) as answer:
                return answer.status, _json(await answer.read())
        except _FAILED as error:
            raise Lost(_why(error)) from error

    @asynccontextmanager
    async def stream(self, target: str, seconds: float, silence: float) -> AsyncIterator[Incoming]:
        """The answer to a GET, which begins within `seconds`; its body may be silent for `silence`. Raises `Lost`."""
        # a coding on the way would have another length
        patience, headers = aiohttp.ClientTimeout(total=None, sock_read=silence), {"Accept-Encoding": "identity"}
        request = self.session.get(self.address.url + target, headers=headers, timeout=patience, allow_redirects=False)
        try:
            async with asyncio.timeout(seconds):
                answer = await request
        except _FAILED as error:
            raise Lost(_why(error)) from error
        try:
            yield Incoming(answer)
        finally:
            answer.close()  # what is not read to its end is not worth keeping the connection

    async def close(self) -> None:
        """Close all connections."""
        await self.session.close()


def _why(error: Exception) -> str:
    """What failed; aiohttp says `ssl:default` of plain HTTP, too."""
    return str(error).replace(" ssl:default", "") or type(error).__name__


def _json(data: bytes) -> Any:
    """What a body says; None where it is no JSON, as a proxy's pages are."""
    try:
        return decode_json(data)
    except ValueError:
        return None
