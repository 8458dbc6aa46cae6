"""The billing engine: subscriptions, invoices, payments, discounts, checkout, portal."""
