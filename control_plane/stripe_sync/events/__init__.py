"""What Stripe tells: stored once, processed by reading the object again."""
