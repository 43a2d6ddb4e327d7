"""Route 53 and the resolvers of the lab: authoritative DNS, one caching resolver per Region, and what the store needs in both.

`start` serves DNS (threads in the process of the local AWS), `setup` makes the store's zone, records, health checks and routing controls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lab.aws.service import World
    from lab.plan import LabPlan


class Stoppable(Protocol):
    """What `start` gives back."""

    def stop(self) -> None:
        """Stop serving and free the ports."""


def start(world: World, plan: LabPlan) -> Stoppable:
    """Set up the store's names (once) and serve DNS on the plan's ports. Raises OSError where a port is taken."""
    from lab.dns.serving import Dns

    setup(world, plan)
    return Dns(world, plan).start()


def setup(world: World, plan: LabPlan, policy: str = "latency") -> None:
    """Make the store's zone, records, health checks and routing controls; nothing where they exist.

    ``policy`` is ``latency`` (as the guidance's template has it) or ``failover`` (as its text has it: the first Region is the primary).
    """
    from lab.dns.store import make

    make(world, plan, policy)
