"""The ledger: synthetic orders that account for themselves: placed, read back in every Region, cleaned up, and named when they are lost."""
