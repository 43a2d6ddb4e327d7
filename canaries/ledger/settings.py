"""The ledger's configuration, as ``config.json`` holds it. `canaries.config.ledger_config` renders it from the topology."""

from __future__ import annotations

from dataclasses import dataclass

from canaries.shared.target import Common


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings(Common):
    """All of it.

    write_to        as the probe's
    orders_per_run  how many orders a run places: few, they are real rows
    keep_s          how long an order stays before it is deleted; a loss that shows later than that is not seen
    open_limit      no order is placed while this many are open or of unknown fate, so that nothing grows when deleting fails
    read_within_s   how long a new order may take to show in a Region before the run goes on
    poll_s          how often it is looked for
    suspect_s       how long after a first look an order has to be absent still to be lost: replicas of one Region are not all as far
    """

    write_to: dict[str, str | None]
    orders_per_run: int = 1
    keep_s: float = 900.0
    open_limit: int = 200
    read_within_s: float = 8.0
    poll_s: float = 0.2
    suspect_s: float = 5.0
    total_s: float = 5.0
    email: str = "ledger@crosswatch.invalid"
    s3_endpoint: str | None = None
