"""Paying on a checkout page: Stripe's own by a browser, the simulator's by its form."""

import asyncio
import re
import shutil

import httpx

# what to type for the test cards that the API knows by name
NUMBERS = {
    "pm_card_visa": "4242424242424242",
    "pm_card_chargeCustomerFail": "4000000000000341",
    "pm_card_createDispute": "4000000000000259",
}
FIELDS = {
    "#cardNumber": "",
    "#cardExpiry": "12 / 34",
    "#cardCvc": "123",
    "#billingName": "Ada Nimbus",
    "#billingPostalCode": "10001",
    "#email": "ada@nimbus.example",
}
CARD_CHOICE = '[data-testid="card-accordion-item-button"]'
SUBMIT = '[data-testid="hosted-payment-submit-button"]'
SAVE_FOR_LATER = "#enableStripePass"
REFUSED = re.compile(r"declined|was not accepted|try a different card", re.IGNORECASE)
SLOWEST_SECONDS = 90.0


async def pay_by_form(url: str, card: str) -> bool:
    """Press a button of the simulator's page; says whether it was taken."""
    async with httpx.AsyncClient() as browser:
        answer = await browser.post(url, data={"card": card})
    assert answer.status_code in {200, 303}, f"{url} answered {answer.status_code}"
    return answer.status_code == 303


async def pay_in_browser(url: str, card: str, *, leads_to: str) -> bool:
    """Type a card into Stripe's hosted page; says whether it was taken.

    `leads_to` is where the page goes then: nothing needs to answer there.
    """
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None),
            args=["--no-sandbox"],
        )
        try:
            page = await browser.new_page(locale="en-US")
            page.set_default_timeout(SLOWEST_SECONDS * 1000)
            await page.route(f"{leads_to}**", lambda route: route.fulfill(body="thanks"))
            await page.goto(url)
            await page.locator(SUBMIT).wait_for()
            choice = page.locator(CARD_CHOICE)
            if await choice.count() and await choice.first.is_visible():
                await choice.first.click()
            await page.locator("#cardNumber").wait_for()
            for field, text in FIELDS.items():
                found = page.locator(field)
                if await found.count() and await found.is_visible() and await found.is_editable():
                    await found.fill(text or NUMBERS[card])
            saved = page.locator(SAVE_FOR_LATER)
            if await saved.count() and await saved.is_checked():
                await saved.uncheck()
            await page.locator(SUBMIT).click()
            return await _taken(page, leads_to)
        finally:
            await browser.close()


async def _taken(page: object, leads_to: str) -> bool:
    for _ in range(int(SLOWEST_SECONDS * 2)):
        if page.url.startswith(leads_to):  # type: ignore[attr-defined]
            return True
        said = page.get_by_text(REFUSED)  # type: ignore[attr-defined]
        if await said.count() and await said.first.is_visible():
            return False
        await asyncio.sleep(0.5)
    said = (await page.locator("body").inner_text())[:500]  # type: ignore[attr-defined]
    raise AssertionError(f"the checkout page neither took nor refused the card; it says: {said}")
