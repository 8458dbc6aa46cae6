import io
import shutil

import pytest
from rich.console import Console

from devstack.demo.page import render_page, serve_page
from devstack.demo.report import Check
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


class TestTerminal:
    def test_shows_the_same(self):
        out = io.StringIO()
        print_report(Console(file=out, width=100), sample_report(checks=(Check("x", 1, {"events": 2}),)))
        for text in ("Nimbus Labs", "quota_exceeded", "Retry-After: 60", "$49.00", "DIFFERS", "A note."):
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
