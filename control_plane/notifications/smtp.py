"""Handing one mail to an SMTP server, and what came of it."""

import asyncio
import ssl
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from types import TracebackType
from typing import Self

import aiosmtplib

from control_plane.foundation.errors import ValidationFailedError
from control_plane.notifications.model import SmtpConfig, is_permanent, parse_address
from control_plane.notifications.rendering import RenderedMail

MAX_TOLD = 300


class ServerUnavailableError(Exception):
    """The server takes nothing from us now: it is away, or refuses us. No mail is to blame."""


class MailRefusedError(Exception):
    """This mail will never be taken."""


class MailPutOffError(Exception):
    """This mail was not taken, for sure; it may be later."""


class OutcomeUnknownError(Exception):
    """The connection was lost after the text had gone out: nobody knows whether the mail was taken."""


def compose(
    rendered: RenderedMail, *, sender: str, to_address: str, message_id: str, now: datetime
) -> EmailMessage:
    """Return the message: plain text, and HTML beside it.

    Raises:
        MailRefusedError: it cannot be written to that address.
    """
    try:
        writer, reader = parse_address(sender), parse_address(to_address)
        plain = writer.addr_spec.isascii() and reader.addr_spec.isascii()
        message = EmailMessage(policy=SMTP_POLICY.clone(cte_type="7bit", utf8=not plain))
        message["From"], message["To"], message["Subject"] = writer, reader, rendered.subject
    except (ValueError, ValidationFailedError) as error:
        raise MailRefusedError("The address is none that mail can be sent to.") from error
    message["Date"] = format_datetime(now)
    message["Message-ID"] = message_id
    # answers of machines, such as absence notes, are not wanted (RFC 3834)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    return message


class SmtpConnection:
    """One connection, opened when the first mail needs it and again after a loss."""

    def __init__(self, config: SmtpConfig) -> None:
        self._config = config
        self._client: aiosmtplib.SMTP | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None and client.is_connected:
            try:
                await client.quit(timeout=2)
            except (aiosmtplib.SMTPException, OSError):
                client.close()

    async def send(self, message: EmailMessage) -> None:
        """Hand a mail over; returns once the server has taken it.

        Raises:
            ServerUnavailableError, MailRefusedError, MailPutOffError, OutcomeUnknownError: see there.
        """
        client = await self._connected()
        try:
            await self._envelope(client, message)
            await self._text(client, message)
        except asyncio.CancelledError:
            self._drop()
            raise
        except (aiosmtplib.SMTPException, OSError) as error:
            self._drop()
            raise ServerUnavailableError(_told(error)) from error

    async def _connected(self) -> aiosmtplib.SMTP:
        if self._client is not None and self._client.is_connected:
            return self._client
        config = self._config
        try:
            context = ssl.create_default_context(cafile=config.ca_file or None) if config.tls != "none" else None
            client = aiosmtplib.SMTP(
                hostname=config.host,
                port=config.port,
                timeout=config.timeout_seconds,
                use_tls=config.tls == "tls",
                start_tls=config.tls == "starttls",
                tls_context=context,
            )
            await client.connect()
            if config.username:
                await client.login(config.username, config.password)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise ServerUnavailableError(_told(error)) from error
        self._client = client
        return client

    async def _envelope(self, client: aiosmtplib.SMTP, message: EmailMessage) -> None:
        """Say from whom and to whom; nothing of the mail has gone out when this fails."""
        sender, to = (message[name].addresses[0].addr_spec for name in ("From", "To"))
        unicode_address = not (sender.isascii() and to.isascii())
        if unicode_address and not client.supports_extension("smtputf8"):
            raise MailRefusedError("The mail server does not take addresses with letters beyond ASCII.")
        options, encoding = (["SMTPUTF8"], "utf-8") if unicode_address else ([], "ascii")
        try:
            await client.mail(sender, options=options, encoding=encoding)
        except aiosmtplib.SMTPResponseException as error:
            # our own address is refused: a matter of settings, whatever the mail
            await self._reset(client)
            raise ServerUnavailableError(_told(error)) from error
        try:
            await client.rcpt(to, encoding=encoding)
        except aiosmtplib.SMTPResponseException as error:
            await self._reset(client)
            raise _judged(error) from error

    async def _text(self, client: aiosmtplib.SMTP, message: EmailMessage) -> None:
        try:
            await client.data(message.as_bytes())
        except aiosmtplib.SMTPResponseException as error:
            await self._reset(client)
            raise _judged(error) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            self._drop()
            raise OutcomeUnknownError(_told(error)) from error

    async def _reset(self, client: aiosmtplib.SMTP) -> None:
        try:
            await client.rset()
        except (aiosmtplib.SMTPException, OSError):
            self._drop()

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _judged(error: aiosmtplib.SMTPResponseException) -> Exception:
    return (MailRefusedError if is_permanent(error.code) else MailPutOffError)(_told(error))


def _told(error: BaseException) -> str:
    """Return what went wrong in one line; SMTP's answers hold no password."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {' '.join(str(error.message).split())}"[:MAX_TOLD]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_TOLD]
