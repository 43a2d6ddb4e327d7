"""Bringing a stack to a plan, and back where that fails: creation, update, deletion and their rollbacks.

Resources are made in the order of their dependencies, those that do not depend on each other at the same time. Everything that happens is
an event of the stack. `Operation` works on one stack and is used by one thread.
"""

from __future__ import annotations

import functools
import json
import logging
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.aws.service import AwsError
from lab.aws.services.cloudformation import planning
from lab.aws.services.cloudformation.errors import ResourceError
from lab.aws.services.cloudformation.model import Definition, Plan, Resource, Stack
from lab.aws.services.cloudformation.resources import TYPES
from lab.aws.services.cloudformation.resources.base import Env

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lab.aws.service import World

log = logging.getLogger(__name__)

AT_ONCE = 6
_REPLACING = "Requested update requires the creation of a new physical resource; hence creating one."


@dataclass(slots=True)
class Step:
    """What an update did to one resource, so that it can be undone. ``before`` is None where it was created."""

    after: Resource
    before: Resource | None
    replaced: bool = False


class Operation:
    """One operation on one stack."""

    def __init__(self, world: World, stack: Stack) -> None:
        self._world = world
        self._stack = stack
        self._steps: list[Step] = []
        self._applied_tags: Mapping[str, str] = stack.plan.tags if stack.plan else {}

    # ---- whole operations

    def create(self, plan: Plan, publish: Callable[[Plan], None], on_failure: str) -> None:
        """Make every resource of ``plan``. ``publish`` sets the outputs; ``on_failure``: ROLLBACK, DELETE or DO_NOTHING."""
        failed = self._apply(plan) or self._publish(plan, publish)
        if not failed:
            self._become("CREATE_COMPLETE")
            return
        reason = f"The following resource(s) failed to create: [{', '.join(failed)}]. "
        if on_failure == "DO_NOTHING":
            self._become("CREATE_FAILED", reason)
        elif on_failure == "DELETE":
            self._become("DELETE_IN_PROGRESS", reason + "Delete requested by user.")
            self.delete(frozenset())
        else:
            self._become("ROLLBACK_IN_PROGRESS", reason + "Rollback requested by user.")
            stuck = self._remove_all(self._stack.resources.values(), keep=False)
            if stuck:
                self._become("ROLLBACK_FAILED", f"The following resource(s) failed to delete: [{', '.join(stuck)}]. ")
            else:
                self._become("ROLLBACK_COMPLETE")

    def update(self, plan: Plan, publish: Callable[[Plan], None]) -> list[Step]:
        """Bring the stack from its plan to ``plan``, or back; the steps that could not be undone, in the order to undo them."""
        old = self._stack.plan
        failed = self._apply(plan) or self._publish(plan, publish)
        if failed:
            reason = f"The following resource(s) failed to update: [{', '.join(failed)}]. "
            return self.undo(list(reversed(self._steps)), old, publish, frozenset(), reason)
        self._become("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        replaced = [step.before for step in self._steps if step.replaced and step.before]
        self._remove_all(replaced, keep=True, replaced=True, forget=False)
        dropped = [one for logical, one in list(self._stack.resources.items()) if logical not in plan.definitions]
        for logical in self._remove_all(dropped, keep=True):  # AWS leaves what cannot be deleted behind, outside the stack
            self._stack.resources.pop(logical, None)
        self._become("UPDATE_COMPLETE")
        return []

    def undo(
        self, steps: list[Step], old: Plan | None, publish: Callable[[Plan], None], skip: frozenset[str], reason: str = ""
    ) -> list[Step]:
        """Roll an update back. Returns the steps that are left where one could not be undone (UPDATE_ROLLBACK_FAILED)."""
        self._become("UPDATE_ROLLBACK_IN_PROGRESS", reason)
        fresh: list[Resource] = []
        for index, step in enumerate(steps):
            logical = step.after.definition.logical
            if step.before is None or step.replaced:
                fresh.append(step.after)
                if step.before is None:
                    continue
            try:
                if logical not in skip:
                    self._restore(step)
            except (ResourceError, AwsError) as error:
                self._event(step.after, "UPDATE_FAILED", _reason(error))
                self._become("UPDATE_ROLLBACK_FAILED", f"The following resource(s) failed to update: [{logical}]. ")
                return steps[index:]
        if old is not None:
            self._publish(old, publish)
        self._become("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        self._remove_all(fresh, keep=False, forget=False)
        for one in fresh:
            if self._stack.resources.get(one.definition.logical) is one:
                del self._stack.resources[one.definition.logical]
        self._become("UPDATE_ROLLBACK_COMPLETE")
        return []

    def delete(self, retained: frozenset[str]) -> bool:
        """Remove every resource but those of DeletionPolicy Retain and ``retained``; whether that worked."""
        for logical in retained:
            resource = self._stack.resources.pop(logical)
            self._event(resource, "DELETE_SKIPPED")
        stuck = self._remove_all(self._stack.resources.values(), keep=True)
        if stuck:
            self._become("DELETE_FAILED", f"The following resource(s) failed to delete: [{', '.join(stuck)}]. ")
            return False
        self._stack.deleted = self._world.clock.now()
        self._become("DELETE_COMPLETE")
        return True

    # ---- forward

    def _apply(self, plan: Plan) -> list[str]:
        """Make or change every resource of the plan; the logical names of those that failed."""
        needs = {logical: definition.needs for logical, definition in plan.definitions.items()}
        self._applied_tags = plan.tags
        return self._in_order(needs, lambda logical: self._bring(plan, plan.definitions[logical]))

    def _bring(self, plan: Plan, definition: Definition) -> None:
        """Bring one resource to its definition. Raises `ResourceError` or `AwsError`, with the event written."""
        kind = TYPES[definition.type]
        env = self._env(definition.logical, plan.tags, self._stack.plan.tags if self._stack.plan else {})
        current = self._stack.resources.get(definition.logical)
        resource = Resource(definition)
        verb = "CREATE" if current is None else "UPDATE"
        try:
            properties = planning.resolved(self._world, self._stack.region, self._stack.resources, definition.properties)
            wanted = kind.checked(properties)
            if current is not None and current.definition.type != definition.type:
                raise ResourceError("Update of resource type is not permitted. The new template modifies resource type", "InvalidRequest")
            if current is not None and self._unchanged(current, wanted, plan):
                current.definition = definition
                return
            before = current.properties if current else {}
            changed = [name for name in {*wanted, *before} if before.get(name) != wanted.get(name)]
            anew = current is None or any(kind.recreation(name) == "Always" for name in changed)
            resource = replace(current, definition=definition) if current and not anew else resource
            if current is not None and anew:
                self._refuse_same_name(kind.name_property, current, wanted, definition)
            self._event(resource, f"{verb}_IN_PROGRESS", _REPLACING if current and anew else "", properties)
            if anew:
                resource.properties = wanted
                self._note(Step(resource, current, replaced=current is not None))
                resource.physical = kind.create(replace(env, made=functools.partial(setattr, resource, "physical")), wanted)
            elif current is not None:
                self._note(Step(resource, current))
                kind.update(env, current.physical, current.properties, wanted)
            resource.properties = wanted
            resource.ref = kind.ref(env, resource.physical, wanted)
            resource.attributes = kind.get(env, resource.physical, wanted)
        except (ResourceError, AwsError) as error:
            self._event(resource, f"{verb}_FAILED", _reason(error))
            if current is None:
                self._stack.resources[definition.logical] = resource
            raise
        self._stack.resources[definition.logical] = resource
        self._event(resource, f"{verb}_COMPLETE")

    def _unchanged(self, current: Resource, wanted: Mapping[str, Any], plan: Plan) -> bool:
        tagged = self._stack.plan is None or self._stack.plan.tags == plan.tags or "Tags" not in TYPES[current.definition.type].shapes
        return tagged and planning.canonical(current.properties) == planning.canonical(wanted)

    def _refuse_same_name(self, name_property: str, current: Resource, wanted: Mapping[str, Any], definition: Definition) -> None:
        """A resource with a name of its own cannot be replaced under the same name."""
        if name_property and name_property in wanted and current.properties.get(name_property) == wanted[name_property]:
            raise ResourceError(
                f"CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename {wanted[name_property]} "
                f"and update the stack again. ({definition.logical})",
                "InvalidRequest",
            )

    def _publish(self, plan: Plan, publish: Callable[[Plan], None]) -> list[str]:
        """Compute the outputs; a failure counts as one of the stack's."""
        try:
            publish(plan)
        except (AwsError, ResourceError) as error:
            self._stack.record(
                self._world.clock.now(), self._stack.name, "AWS::CloudFormation::Stack", self._stack.id, self._stack.status, _reason(error)
            )
            return [self._stack.name]
        return []

    def _note(self, step: Step) -> None:
        with self._stack.lock:
            self._steps.append(step)

    # ---- backward

    def _restore(self, step: Step) -> None:
        """Give one resource back what it had before."""
        before = step.before
        if before is None:
            return
        kind, logical = TYPES[before.definition.type], before.definition.logical
        self._event(before, "UPDATE_IN_PROGRESS")
        if not step.replaced:
            tags = self._stack.plan.tags if self._stack.plan else {}
            applied = step.after.properties or before.properties
            kind.update(self._env(logical, tags, self._applied_tags), before.physical, applied, before.properties)
        self._stack.resources[logical] = before
        self._event(before, "UPDATE_COMPLETE")

    def _remove_all(self, resources: Iterable[Resource], keep: bool, replaced: bool = False, forget: bool = True) -> list[str]:
        """Delete resources, each before those it needs; the names of those that could not be. ``keep``: honour Retain."""
        by_name = {one.definition.logical: one for one in resources}
        needed_by: dict[str, set[str]] = {name: set() for name in by_name}
        for name, one in by_name.items():
            for need in one.definition.needs & by_name.keys():
                needed_by[need].add(name)

        def remove(logical: str) -> None:
            resource = by_name[logical]
            policy = resource.definition.replacement if replaced else resource.definition.deletion
            self._remove(resource, keep and policy == "Retain")
            if forget:
                with self._stack.lock:
                    self._stack.resources.pop(logical, None)

        return self._in_order({name: frozenset(users) for name, users in needed_by.items()}, remove, stop=False)

    def _remove(self, resource: Resource, retain: bool) -> None:
        if not resource.physical:  # it never came to be
            return
        if retain:
            self._event(resource, "DELETE_SKIPPED")
            return
        self._event(resource, "DELETE_IN_PROGRESS")
        try:
            kind = TYPES[resource.definition.type]
            kind.delete(self._env(resource.definition.logical, {}), resource.physical, resource.properties)
        except (ResourceError, AwsError) as error:
            self._event(resource, "DELETE_FAILED", _reason(error))
            raise
        self._event(resource, "DELETE_COMPLETE")

    # ---- what both directions use

    def _in_order(self, needs: Mapping[str, frozenset[str]], work: Callable[[str], None], stop: bool = True) -> list[str]:
        """Do ``work`` for every name after those it needs; the names that failed. After a failure nothing that depends on it is begun, and
        with ``stop`` nothing at all."""
        waiting = {name: set(of) & needs.keys() for name, of in needs.items()}
        failed: list[str] = []
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"cloudformation-{self._stack.name}") as pool:
            while True:
                if not (failed and stop):
                    for name in [name for name, of in waiting.items() if not of]:
                        del waiting[name]
                        running[pool.submit(work, name)] = name
                if not running:
                    return failed
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    error = future.exception()
                    if error is None:
                        for of in waiting.values():
                            of.discard(name)
                        continue
                    failed.append(name)
                    if not isinstance(error, ResourceError | AwsError):
                        log.error("%s: %s failed", self._stack.name, name, exc_info=error)

    def _env(self, logical: str, tags: Mapping[str, str], previous: Mapping[str, str] | None = None) -> Env:
        stack = self._stack
        return Env(self._world, stack.region, stack.account, stack.name, stack.id, logical, tags, previous or {})

    def _event(self, resource: Resource, status: str, reason: str = "", properties: Any = None) -> None:
        now = self._world.clock.now()
        resource.status, resource.reason, resource.updated = status, reason, now
        definition = resource.definition
        text = "" if properties is None else json.dumps(properties, default=str)
        self._stack.record(now, definition.logical, definition.type, resource.physical, status, reason, text)

    def _become(self, status: str, reason: str = "") -> None:
        self._stack.become(self._world.clock.now(), status, reason)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, AwsError) else str(error.args[0])
