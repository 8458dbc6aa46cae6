"""What every store holds of the same usage and money, and where they differ."""
