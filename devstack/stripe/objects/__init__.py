"""The account, its catalogue, customers, meters, clocks and webhooks."""
