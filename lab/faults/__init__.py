"""The lab's faults: a catalogue of ways to break it for real, and the board of those in force."""

from __future__ import annotations

from lab.faults import aws, regions
from lab.faults.board import Active, Board
from lab.faults.fault import Catalogue, Fault, Where
from lab.faults.ground import Ground, NotHealed

CATALOGUE = Catalogue([*regions.FAULTS, *aws.FAULTS])

__all__ = ["CATALOGUE", "Active", "Board", "Catalogue", "Fault", "Ground", "NotHealed", "Where"]
