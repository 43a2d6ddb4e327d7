"""The failover drill: break a Region, be paged, do what the page says, mend, and prove that all of it was seen."""

from __future__ import annotations

from lab.drill.flow import drill

__all__ = ["drill"]
