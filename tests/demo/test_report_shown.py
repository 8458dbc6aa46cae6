import io
import shutil

import pytest
from rich.console import Console

from devstack.demo.page import render_page, serve_page
from devstack.demo.report import Check, Purchase, StripeFigure
from devstack.demo.terminal import print_report
from tests.demo.samples import sample_report


class TestPage:
    def test_shows_usage_refusals_invoices_and_the_verdict(self):
        page = render_page(sample_report())
        for text in ("Nimbus Labs", "quota exceeded", "$49.00", "unknown key", "Every figure is equal"):
            assert text in page

    def test_escapes_what_came_over_the_wire(self):
        page = render_page(sample_report())
        assert "<script>" not in page
        assert "&lt;script&gt;" in page

    def test_says_so_when_figures_differ(self):
        page = render_page(sample_report(checks=(Check("x", 1, {"events": 2}),)))
        assert "Figures differ" in page
        assert "DIFFERS" in page

    def test_says_so_when_stripe_invoices_something_else(self):
        purchase = Purchase("Lumen Maps", 1.25, 40, (StripeFigure("the first invoice", 9_900, 123_456),))
        report = sample_report(purchase=purchase)
        assert (report.ok, report.wrong) == (False, 1)
        page = render_page(report)
        for told in ("$99.00", "$1,234.56", "DIFFERS", "Figures differ"):
            assert told in page

    def test_leaves_the_purchase_out_where_there_was_none(self):
        report = sample_report(purchase=None)
        assert report.ok
        assert "Stripe" not in render_page(report)


class TestTerminal:
    def test_shows_the_same(self):
        out = io.StringIO()
        print_report(Console(file=out, width=100), sample_report(checks=(Check("x", 1, {"events": 2}),)))
        for text in (
            "Lumen Maps",
            "$99.00",
            "Nimbus Labs",
            "quota_exceeded",
            "Retry-After: 60",
            "$49.00",
            "DIFFERS",
            "A note.",
        ):
            assert text in out.getvalue()


@pytest.mark.browser
class TestPageInABrowser:
    @pytest.mark.parametrize("width", [1280, 390])
    async def test_nothing_is_cut_off(self, width):
        from playwright.async_api import async_playwright

        runner, url = await serve_page(render_page(sample_report()))
        try:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                    args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
                )
                page = await browser.new_page(viewport={"width": width, "height": 900})
                answer = await page.goto(url)
                assert answer is not None
                assert answer.ok
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert await page.locator("h1").inner_text() == "What just happened on your gateway"
                assert await page.locator("section.card").count() >= 5
                await browser.close()
        finally:
            await runner.cleanup()
