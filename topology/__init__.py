"""The typed model of topology.yaml and the catalogue of every signal that Crosswatch uses."""

from topology.loading import load, loads
from topology.model import NAME_TARGET, Topology, alb_target
from topology.problems import Problem, UnusableInput

__all__ = ["NAME_TARGET", "Problem", "Topology", "UnusableInput", "alb_target", "load", "loads"]
