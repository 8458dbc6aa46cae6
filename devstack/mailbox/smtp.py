"""The door through which mails come in."""

import asyncio

from aiosmtpd.smtp import SMTP, Envelope, Session

from devstack.mailbox.store import Mailbox

MAX_BYTES = 10 * 1024 * 1024


class _Keeper:
    """What aiosmtpd calls; the names are its own."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - theirs
        content = envelope.content or b""
        number = self._mailbox.keep(content.encode() if isinstance(content, str) else content)
        return f"250 kept as {number}"


async def serve_smtp(mailbox: Mailbox, *, port: int) -> asyncio.Server:
    """Take mails on 127.0.0.1, without TLS or login; port 0 takes a free one."""
    loop = asyncio.get_running_loop()
    keeper = _Keeper(mailbox)

    def protocol() -> SMTP:
        return SMTP(
            keeper, hostname="mailbox.localhost", data_size_limit=MAX_BYTES, enable_SMTPUTF8=True, loop=loop
        )

    return await loop.create_server(protocol, host="127.0.0.1", port=port)
