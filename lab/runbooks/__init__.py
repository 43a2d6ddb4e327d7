"""The runbooks: Systems Manager Automation documents for people who have to act, and the scripts that their steps run.

``documents/*.yaml`` are Automation documents with two things filled in when they are rendered: ``@workload@`` and ``@role@``, and
``!script file.py``, which puts a script of ``scripts/`` in its place. `render` gives the finished documents, `register` puts them and the
parameters they need into a lab's Systems Manager, in every Region.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.runbooks.rendering import render

if TYPE_CHECKING:
    from lab.aws.service import World
    from lab.plan import LabPlan

__all__ = ["register", "render"]


def register(world: World, plan: LabPlan) -> None:
    """Put the role, parameters, buckets and documents of the runbooks in place; existing ones are brought up to date."""
    from lab.runbooks.registration import put_all

    put_all(world, plan)
