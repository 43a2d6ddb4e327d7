"""The lab's faults: a catalogue of ways to break it for real, and the board of those in force."""

from __future__ import annotations

from lab.faults import aws, balancer, caches, databases, regions, routing, services, vantages
from lab.faults.board import Active, Board
from lab.faults.fault import Catalogue, Fault, Where
from lab.faults.ground import Ground, NotHealed

FAMILIES = (regions, services, balancer, routing, databases, caches, vantages, aws)
CATALOGUE = Catalogue(fault for family in FAMILIES for fault in family.FAULTS)

__all__ = ["CATALOGUE", "Active", "Board", "Catalogue", "Fault", "Ground", "NotHealed", "Where"]
