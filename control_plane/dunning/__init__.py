"""What follows when a payment fails: notice, grace, then by policy; and recovery."""
