"""Mails from the transaction of their cause to a mail server, through everything that goes wrong between."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from control_plane.accounts.tables import Account
from control_plane.billing.profiles.model import BillingProfile
from control_plane.billing.profiles.operations import set_billing_profile
from control_plane.notifications.model import GIVE_UP_AFTER, MailKind
from control_plane.notifications.operations import resend_mail
from control_plane.notifications.queue import queue_mail
from control_plane.notifications.samples import SAMPLES
from control_plane.notifications.tables import Mail
from control_plane.notifications.worker import MailConfig, MailSender, run_mail
from tests.certificates import make_certificate
from tests.control_plane.builders import ACTOR, an_account
from tests.control_plane.notifications.conftest import login

MINUTE = timedelta(minutes=1)


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(now):
    return Clock(now)


@pytest.fixture
async def account(sessions, now):
    async with sessions() as session, session.begin():
        account = await an_account(session, now=now, time_zone="Europe/Berlin")
        account.email = "ada@example.com"
    return account


@pytest.fixture
def sender(sessions, clock, mail_server):
    return a_sender(sessions, clock, mail_server)


def a_sender(sessions, clock, server, **smtp):
    return MailSender(config=MailConfig(smtp=server.config(**smtp)), sessions=sessions, clock=clock)


async def queue(sessions, account, now, *, cause="case:1", kind=MailKind.PAYMENT_FAILED):
    async with sessions() as session, session.begin():
        return await queue_mail(
            session, kind=kind, cause=cause, values=SAMPLES[kind], account_id=account.id, now=now
        )


async def the_mail(sessions):
    async with sessions() as session:
        return (await session.scalars(select(Mail))).one()


class TestQueue:
    async def test_tells_the_same_cause_once_however_often_and_by_how_many(self, *, sessions, account, now):
        done = await asyncio.gather(*(queue(sessions, account, now) for _ in range(8)))
        assert sorted(done) == [False] * 7 + [True]

    async def test_sends_nothing_of_a_transaction_that_was_undone(
        self, *, sessions, account, sender, mail_server, now
    ):
        async with sessions() as session:
            await queue_mail(
                session, kind=MailKind.TEST, cause="x", values=SAMPLES["test"], account_id=account.id, now=now
            )
            await sender.send_due()
            await session.rollback()
        await sender.send_due()
        assert not mail_server.taken


class TestSending:
    async def test_sends_each_mail_once_to_where_bills_go(self, *, sessions, account, sender, mail_server, now):
        async with sessions() as session, session.begin():
            profile = BillingProfile(legal_name="Acme", invoice_email="bills@example.com")
            await set_billing_profile(session, account_id=account.id, profile=profile, actor=ACTOR, now=now)
        await queue(sessions, account, now)
        assert await sender.send_due() == 1
        assert await sender.send_due() == 0
        ((to, message),) = mail_server.taken
        assert to == "bills@example.com"
        assert "Europe/Berlin" in message.get_body(("plain",)).get_content()
        mail = await the_mail(sessions)
        assert (mail.state, mail.sent_to, mail.subject) == ("sent", to, message["Subject"])
        assert mail.message_id == message["Message-ID"]

    async def test_goes_to_the_account_where_no_profile_names_another(
        self, *, sessions, account, sender, mail_server, now
    ):
        await queue(sessions, account, now)
        await sender.send_due()
        assert mail_server.taken[0][0] == "ada@example.com"

    async def test_two_senders_send_no_mail_twice(self, *, sessions, account, clock, mail_server, now):
        for number in range(12):
            await queue(sessions, account, now, cause=f"case:{number}")
        senders = [a_sender(sessions, clock, mail_server) for _ in range(3)]
        assert sum(await asyncio.gather(*(one.send_due() for one in senders))) == 12
        assert len(set(mail_server.message_ids)) == len(mail_server.taken) == 12

    async def test_a_temporary_refusal_is_tried_again_after_growing_pauses(
        self, *, sessions, account, sender, mail_server, clock, now
    ):
        mail_server.answers["rcpt"] = ["451 greylisted", "452 later"]
        await queue(sessions, account, now)
        pauses = []
        for _ in range(2):
            await sender.send_due()
            mail = await the_mail(sessions)
            pauses.append(mail.due_at - clock.now)
            assert "45" in mail.error
            await sender.send_due()  # not before it is due
            clock.now = mail.due_at
        assert pauses == [MINUTE, 2 * MINUTE]
        assert mail_server.tried == 2
        assert await sender.send_due() == 1
        assert (await the_mail(sessions)).state == "sent"

    @pytest.mark.parametrize("step", ["rcpt", "data"])
    async def test_a_permanent_refusal_is_final_and_keeps_nobody_else_waiting(
        self, *, sessions, account, sender, mail_server, clock, now, step
    ):
        mail_server.answers[step] = ["550 no such mailbox here"]
        await queue(sessions, account, now)
        await sender.send_due()
        mail = await the_mail(sessions)
        assert (mail.state, mail.error) == ("refused", "550 no such mailbox here")
        await queue(sessions, account, now, cause="case:2")
        clock.now += timedelta(hours=1)
        assert await sender.send_due() == 1

    async def test_a_server_that_refuses_us_is_no_mails_fault(
        self, *, sessions, account, sender, mail_server, clock, now
    ):
        mail_server.answers["mail"] = ["553 this sender is not allowed"]
        await queue(sessions, account, now)
        await sender.send_due()
        mail = await the_mail(sessions)
        assert (mail.state, mail.attempts) == ("waiting", 0)
        clock.now = mail.due_at
        assert await sender.send_due() == 1

    async def test_a_server_that_is_away_costs_nothing_but_time(
        self, *, sessions, account, sender, mail_server, clock, now
    ):
        await mail_server.stop()
        await queue(sessions, account, now)
        for _ in range(3):
            await sender.send_due()
            clock.now = (await the_mail(sessions)).due_at
        mail = await the_mail(sessions)
        assert (mail.state, mail.attempts, mail.cut_off) == ("waiting", 0, 0)
        await mail_server.start()
        assert await sender.send_due() == 1

    async def test_a_server_that_is_away_is_left_alone_for_a_while(
        self, *, sessions, account, sender, mail_server, clock, now
    ):
        await mail_server.stop()
        for number in range(3):
            await queue(sessions, account, now, cause=f"case:{number}")
        for _ in range(3):
            await sender.send_due()
            clock.now += timedelta(seconds=2)
        async with sessions() as session:
            mails = (await session.scalars(select(Mail))).all()
        assert len([mail for mail in mails if mail.error]) == 1
        await mail_server.start()
        clock.now += timedelta(minutes=1)
        assert await sender.send_due() == 3

    async def test_gives_up_after_three_days(self, *, sessions, account, sender, mail_server, clock, now):
        mail_server.answers["rcpt"] = ["451 later"] * 1000
        await queue(sessions, account, now)
        while (mail := await the_mail(sessions)).state == "waiting":
            clock.now = max(clock.now, mail.due_at)
            await sender.send_due()
        assert mail.state == "given_up"
        assert "451" in mail.error
        assert clock.now - now >= GIVE_UP_AFTER
        assert mail.attempts < 40

    async def test_sends_nothing_stale_when_a_server_is_set_after_weeks(
        self, *, sessions, account, sender, mail_server, clock, now
    ):
        await queue(sessions, account, now)
        clock.now += timedelta(days=20)
        assert await sender.send_due() == 0
        assert (await the_mail(sessions)).state == "given_up"

    async def test_without_a_server_mails_wait(self, *, sessions, account, clock, now):
        await queue(sessions, account, now)
        idle = MailSender(config=MailConfig(), sessions=sessions, clock=clock)
        assert await idle.send_due() == 0
        assert (await the_mail(sessions)).state == "waiting"

    async def test_needs_an_address_and_an_account_that_is_there(
        self, *, sessions, account, sender, mail_server, now
    ):
        async with sessions() as session, session.begin():
            (await session.get(Account, account.id)).email = None
        await queue(sessions, account, now)
        await sender.send_due()
        assert "no email address" in (await the_mail(sessions)).error
        async with sessions() as session, session.begin():
            held = await session.get(Account, account.id)
            held.email, held.status = "ada@example.com", "deleted"
            await resend_mail(
                session, mail_id=(await session.scalars(select(Mail.id))).one(), actor=ACTOR, now=now
            )
        await sender.send_due()
        assert "deleted" in (await the_mail(sessions)).error
        assert not mail_server.taken


class TestUnknownOutcome:
    async def test_a_lost_connection_means_once_more_under_the_same_id_and_no_more(
        self, *, sessions, account, sender, mail_server, clock, now
    ):
        mail_server.vanish_after = 5
        await queue(sessions, account, now)
        for _ in range(5):
            await sender.send_due()
            clock.now += timedelta(hours=5)
        assert len(mail_server.taken) == 2
        assert len(set(mail_server.message_ids)) == 1
        assert (await the_mail(sessions)).state == "unknown"

    async def test_a_killed_sender_means_once_more_under_the_same_id_and_no_more(
        self, *, sessions, account, clock, mail_server, now
    ):
        await queue(sessions, account, now)

        async def die_after_sending():
            dying = a_sender(sessions, clock, mail_server)

            async def die(*_args, **_values):
                raise asyncio.CancelledError

            dying.queue.sent = die
            with pytest.raises(asyncio.CancelledError):
                await dying.send_due()

        await die_after_sending()
        alive = a_sender(sessions, clock, mail_server)
        assert await alive.send_due() == 0  # somebody may still be at it
        clock.now += timedelta(minutes=6)
        await die_after_sending()
        clock.now += timedelta(minutes=6)
        assert await alive.send_due() == 0
        assert len(mail_server.taken) == 2
        assert len(set(mail_server.message_ids)) == 1
        assert (await the_mail(sessions)).state == "unknown"

    async def test_whoever_was_paused_beyond_the_lease_changes_nothing(
        self, *, sessions, account, sender, clock, now
    ):
        await queue(sessions, account, now)
        paused = await sender.queue.claim(clock.now)
        clock.now += timedelta(minutes=6)
        assert await sender.send_due() == 1
        await sender.queue.refused(paused, "too late")
        assert (await the_mail(sessions)).state == "sent"

    async def test_nor_while_another_is_at_it(self, *, sessions, account, sender, clock, now):
        await queue(sessions, account, now)
        paused = await sender.queue.claim(clock.now)
        clock.now += timedelta(minutes=6)
        other = await sender.queue.claim(clock.now)
        await sender.queue.refused(paused, "too late")
        await sender.queue.put_off(paused, "too late", until=clock.now)
        mail = await the_mail(sessions)
        assert (mail.state, mail.error, mail.leased_until) == ("waiting", None, other.leased_until)
        await sender.queue.sent(other, sent_to="ada@example.com", subject="x", now=clock.now)
        assert (await the_mail(sessions)).state == "sent"


class TestResend:
    async def test_is_a_new_sending_to_where_bills_go_now(
        self, *, sessions, account, sender, mail_server, clock, now
    ):
        await queue(sessions, account, now)
        await sender.send_due()
        async with sessions() as session, session.begin():
            (await session.get(Account, account.id)).email = "new@example.com"
            await resend_mail(
                session, mail_id=(await session.scalars(select(Mail.id))).one(), actor=ACTOR, now=clock.now
            )
        await sender.send_due()
        assert [to for to, _ in mail_server.taken] == ["ada@example.com", "new@example.com"]
        assert len(set(mail_server.message_ids)) == 2


class TestConnection:
    async def test_encrypts_before_it_logs_in(self, *, sessions, account, clock, mail_server, now, tmp_path):
        context, certificate = make_certificate(tmp_path, "mail")
        mail_server.options = {
            "tls_context": context,
            "require_starttls": True,
            "auth_required": True,
            "authenticator": login,
        }
        await queue(sessions, account, now)
        by = {"tls": "starttls", "ca_file": str(certificate), "username": "km"}
        wrong = a_sender(sessions, clock, mail_server, **by, password="guess")
        assert await wrong.send_due() == 0
        mail = await the_mail(sessions)
        assert mail.state == "waiting"
        assert "guess" not in mail.error
        clock.now = mail.due_at
        untrusting = a_sender(sessions, clock, mail_server, tls="starttls", timeout_seconds=1)
        assert await untrusting.send_due() == 0
        clock.now = (await the_mail(sessions)).due_at
        assert await a_sender(sessions, clock, mail_server, **by, password="open sesame").send_due() == 1

    async def test_hands_nothing_to_a_server_that_cannot_encrypt(
        self, *, sessions, account, clock, mail_server, now
    ):
        await queue(sessions, account, now)
        assert await a_sender(sessions, clock, mail_server, tls="starttls").send_due() == 0
        assert mail_server.tried == 0
        assert (await the_mail(sessions)).state == "waiting"


class TestWorker:
    async def test_sends_what_comes_until_it_is_stopped(self, *, sessions, account, clock, mail_server, now):
        stop = asyncio.Event()
        config = MailConfig(smtp=mail_server.config(), poll_seconds=0.05)
        running = asyncio.create_task(run_mail(config=config, sessions=sessions, stop=stop, clock=clock))
        await queue(sessions, account, now)
        await asyncio.wait_for(mail_server.came.wait(), 20)
        stop.set()
        await asyncio.wait_for(running, 20)
        assert (await the_mail(sessions)).state == "sent"
