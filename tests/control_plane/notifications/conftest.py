"""A mail server that does what a test asks of it."""

import asyncio
from dataclasses import dataclass, field
from email import message_from_bytes, policy

import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from control_plane.notifications.model import SmtpConfig


@dataclass
class MailServer:
    """`answers`: what it says next to a recipient (`rcpt`), sender (`mail`) or text (`data`); then it takes all.

    `vanish_after`: how often the connection is lost once a mail was taken, before that is told.
    """

    port: int = 0
    taken: list = field(default_factory=list)
    tried: int = 0
    answers: dict = field(default_factory=dict)
    vanish_after: int = 0
    options: dict = field(default_factory=dict)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None

    async def start(self):
        self._server = await asyncio.get_running_loop().create_server(self._protocol, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def config(self, **changed):
        return SmtpConfig(
            **{
                "host": "127.0.0.1",
                "port": self.port,
                "tls": "none",
                "timeout_seconds": 5,
                "sender": "Weather API <billing@example.com>",
                **changed,
            }
        )

    def _protocol(self):
        return SMTP(
            self, hostname="mail.test", enable_SMTPUTF8=False, loop=asyncio.get_running_loop(), **self.options
        )

    def _answer(self, step):
        waiting = self.answers.get(step)
        return waiting.pop(0) if waiting else None

    async def handle_MAIL(self, _server, _session, envelope, address, _options):  # noqa: N802 - theirs
        self.tried += 1
        answer = self._answer("mail")
        if answer is None:
            envelope.mail_from = address
        return answer or "250 OK"

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802 - theirs
        answer = self._answer("rcpt")
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, server, _session, envelope):  # noqa: N802 - theirs
        answer = self._answer("data")
        if answer is None:
            self.taken.append((envelope.rcpt_tos[0], message_from_bytes(envelope.content, policy=policy.default)))
            self.came.set()
            if self.vanish_after:
                self.vanish_after -= 1
                server.transport.abort()
        return answer or "250 OK"

    @property
    def message_ids(self):
        return [message["Message-ID"] for _, message in self.taken]


@pytest.fixture
async def mail_server():
    server = MailServer()
    await server.start()
    yield server
    await server.stop()


def login(_server, _session, _envelope, _mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"km", b"open sesame"))
