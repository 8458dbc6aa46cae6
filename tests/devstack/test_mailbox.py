"""The mailbox of `km dev`: takes every mail, shows it, runs nothing of it."""

import asyncio
import shutil
from datetime import UTC, datetime

import httpx
import pytest
import uvicorn

from control_plane.notifications.model import Branding, SmtpConfig
from control_plane.notifications.rendering import render_mail
from control_plane.notifications.samples import SAMPLES
from control_plane.notifications.smtp import SmtpConnection, compose
from devstack.mailbox.pages import mailbox_app
from devstack.mailbox.smtp import serve_smtp
from devstack.mailbox.store import KEPT, Mailbox

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
LONG = "Øresund <Data> & a name that goes on for quite a while"
EVIL = b"""From: a@example.com
To: b@example.com
Subject: <script>document.title='run'</script>
Content-Type: text/html

<h1>Hello</h1><script>document.body.innerHTML = 'run'</script>
<img src="http://127.0.0.1:9/x.png" onerror="document.body.innerHTML = 'run'">
"""


@pytest.fixture
def mailbox(tmp_path):
    return Mailbox(tmp_path / "mailbox")


@pytest.fixture
async def pages(mailbox):
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(mailbox_app(mailbox)), base_url="http://box"
    ) as client:
        yield client


async def send_samples(mailbox):
    """Send a mail of each kind as the product does."""
    server = await serve_smtp(mailbox, port=0)
    port = server.sockets[0].getsockname()[1]
    config = SmtpConfig(host="127.0.0.1", port=port, tls="none", sender="Weather Cloud <billing@example.com>")
    brand = Branding(name=LONG, support_email="help@weather.example.com")
    async with SmtpConnection(config) as connection:
        for kind, values in SAMPLES.items():
            mail = render_mail(kind, {**values, "plan": LONG}, branding=brand, account=LONG)
            message = compose(
                mail,
                sender=config.sender,
                to_address="ada@example.com",
                message_id=f"<{kind}@example.com>",
                now=NOW,
            )
            await connection.send(message)
    server.close()
    await server.wait_closed()


class TestMailbox:
    async def test_shows_what_was_sent_with_its_text_and_source(self, mailbox, pages):
        await send_samples(mailbox)
        listed = (await pages.get("/")).text
        assert "Last day:" in listed
        assert "&lt;Data&gt;" in listed
        (first, *others) = (await pages.get("/mails.json")).json()
        assert len(others) == len(SAMPLES) - 1
        assert first["To"] == "ada@example.com"
        assert "Mail is set up" in first["text"]
        shown = (await pages.get(f"/mails/{first['number']}")).text
        assert first["Message-ID"].strip("<>") in shown
        assert "Message-ID" in (await pages.get(f"/mails/{first['number']}/raw")).text
        assert (await pages.get("/mails/999")).status_code == 404

    def test_keeps_the_newest_over_restarts(self, mailbox, tmp_path):
        for number in range(KEPT + 5):
            mailbox.keep(b"Subject: %d\r\n\r\nx" % number)
        again = Mailbox(tmp_path / "mailbox")
        assert again.keep(EVIL) == KEPT + 6
        kept = again.mails()
        assert len(kept) == KEPT
        assert kept[0].raw == EVIL

    async def test_forbids_what_a_mail_holds_to_run_or_load_anything(self, mailbox, pages):
        number = mailbox.keep(EVIL)
        shown = await pages.get(f"/mails/{number}")
        assert "<script" not in shown.text
        assert 'sandbox="allow-popups' in shown.text
        assert "allow-scripts" not in shown.text
        policy = (await pages.get(f"/mails/{number}/html")).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "sandbox allow-popups" in policy
        assert "allow-scripts" not in policy


@pytest.mark.browser
class TestInABrowser:
    async def test_mails_fit_a_phone_and_a_desk_and_run_nothing(self, mailbox):
        from playwright.async_api import async_playwright

        await send_samples(mailbox)
        evil = mailbox.keep(EVIL)
        config = uvicorn.Config(
            mailbox_app(mailbox), host="127.0.0.1", port=0, log_level="warning", lifespan="off"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.02)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
            )
            for width in (390, 640):
                page = await browser.new_page(viewport={"width": width, "height": 800})
                for number in range(1, len(SAMPLES) + 1):
                    await page.goto(f"{url}/mails/{number}/html")
                    assert await page.evaluate("document.documentElement.scrollWidth") <= width
                await page.goto(f"{url}/mails/1")
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                await page.close()
            page = await browser.new_page()
            await page.goto(f"{url}/mails/{evil}")
            for frame in page.frames[1:]:
                await frame.wait_for_selector("h1")
                assert await frame.locator("h1").inner_text() == "Hello"
            assert await page.title() == "<script>document.title='run'</script>"
            await browser.close()
        server.should_exit = True
        await serving
