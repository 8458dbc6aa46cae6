"""The billing engine of the Stripe simulator: subscriptions, invoices, payments, discounts, checkout, portal.

Written from Stripe's documentation and the SDK's types alone, so that it can be held against what the control
plane reckons. It rates by itself: per unit, packages, graduated and volume tiers in exact decimals, every line
rounded once (each tier that is reached is a line of its own); proration is by the second.

Who does what
-------------
- Pure: `amounts`, `periods`, `proration`, `totals`.
- Lines and invoices: `lines`, `usage` (what meters show), `pending` (invoice items), `invoicing` (drafts and
  what they come to), `lifecycle` (finalised, paid, tried again, voided), `charging`, `cards`, `refunds`,
  `credit_notes`,
  `balances`, `coupons`, `discounts`, `taxes`.
- Subscriptions: `starting`, `moving` (renewals and all that comes with time), `changes` (what a change costs),
  `planning` and `updating`, `pending_updates` (changes that wait for their payment), `ending`, `standing` (what
  payments do to the status), `pausing`, `schedules` and `phases`, `previews`.
- Customers: `checkout` and `completing`, `portal` and `portal_pages`, `controls`.

Orders of the control API (`sim.control.order(name, ...)`)
---------------------------------------------------------
- `complete_checkout` session=..., card="pm_card_visa", email, name, address, promotion_code: fills in the page;
  the answer says `completed`, or the `problem` of a card that was refused.
- `set_card` customer=..., card=...: a new default card, as in the portal.
- `billing_settings` grace_seconds, retry_days, after_retries ("cancel", "unpaid", "past_due"), incomplete_seconds.
- `pay_hosted_invoice` invoice=..., card=... (without: the card on file): the customer pays on the invoice's own
  page and passes whatever authentication the card wants; the answer says `paid`.
- `open_dispute` invoice=... or charge=..., `close_dispute` dispute=..., won=True.

Test cards: pm_card_visa pays; pm_card_chargeCustomerFail can be saved but every charge fails;
pm_card_authenticationRequired needs its customer each time; pm_card_chargeDeclined is refused when it is saved;
pm_card_createDispute pays and is disputed.

Not played, and refused with a sentence that says so: billing thresholds, billing schedules, backdating, Connect,
pending invoice item intervals, revisions of invoices, credit grants, checkout of other modes than `subscription`,
changes of a schedule's current phase.
"""
