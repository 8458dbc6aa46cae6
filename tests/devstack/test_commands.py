"""`km dev`: what it takes from the environment."""

from devstack.commands import billing_settings


class TestDev:
    def test_takes_who_sells_and_when_to_pay_and_nothing_that_is_the_stacks_own(self):
        taken = {"KM_SELLER_NAME": "Wetterwerk GmbH", "KM_PAYMENT_NOTE": "By wire.", "KM_INVOICE_DUE_DAYS": "7"}
        taken |= {"KM_SMTP_HOST": "mail.example.com", "KM_MAIL_FROM": "a@example.com", "KM_DUNNING_AFTER": "free"}
        others = {"KM_DATABASE_URL": "postgresql://elsewhere", "KM_TOKEN": "kmt_x", "HOME": "/root"}
        assert billing_settings(taken | others) == taken
