"""What faults have to work with: the lab's processes, the local AWS's conditions, the parts' control ports, and AWS itself."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from lab import admin

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.plan import LabPlan
    from lab.supervisor import Supervisor


class NotHealed(Exception):
    """After healing, something did not come back in time."""


class Ground:
    """One running lab, as a fault sees it.

    ``begun``: what healing needs to know of the injection that is under way, set before it changes anything in more than one step.
    """

    def __init__(self, plan: LabPlan, supervisor: Supervisor) -> None:
        self.plan = plan
        self.processes = supervisor
        self.begun: Any = None
        self._doing: dict[str, tuple[threading.Event, threading.Thread]] = {}

    def region(self, name: str) -> Any:
        """The plan of a Region."""
        return self.plan.regions[name]

    def others(self, region: str) -> list[str]:
        """The other Regions."""
        return [name for name in self.plan.regions if name != region]

    def impose(self, kind: str, region: str | None = None, service: str | None = None, **options: Any) -> str:
        """Put a condition on the local AWS (see ``lab/aws/conditions.py``); returns its id."""
        condition = {"kind": kind, "region": region, "service": service, **options}
        wanted = {key: value for key, value in condition.items() if value is not None}
        (added,) = admin.call(self.plan.control_port, "POST", "/conditions", wanted)
        return str(added["id"])

    def lift(self, identity: str) -> None:
        """Take a condition off again."""
        admin.call(self.plan.control_port, "DELETE", f"/conditions?id={identity}")

    def client(self, service: str, region: str, endpoint_url: str | None = None) -> Any:
        """A boto3 client of the lab's administrator; ``endpoint_url`` where it is not the Region's own."""
        import boto3
        from botocore.config import Config

        pair = self.plan.credentials["admin"]
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=endpoint_url or self.plan.regions[region].aws_endpoint,
            aws_access_key_id=pair.access_key,
            aws_secret_access_key=pair.secret_key,
            config=Config(retries={"max_attempts": 2}, connect_timeout=2, read_timeout=10),
        )

    def keep_doing(self, what: str, work: Callable[[threading.Event], None]) -> None:
        """Run ``work(stopping)`` in a thread until `stop_doing`; for faults that need somebody who misbehaves all the time."""
        stopping = threading.Event()
        thread = threading.Thread(target=work, args=(stopping,), name=what, daemon=True)
        self._doing[what] = (stopping, thread)
        thread.start()

    def stop_doing(self, what: str) -> None:
        """End what `keep_doing` began, if it did, and wait until it has ended."""
        if what in self._doing:
            stopping, thread = self._doing.pop(what)
            stopping.set()
            thread.join(10)

    def await_(self, what: str, is_true: Callable[[], bool], within_s: float = 30.0) -> None:
        """Wait until ``is_true()``; OSError and a part's refusal mean "not yet". Raises `NotHealed`."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                if is_true():
                    return
            except (OSError, admin.Refusal):
                pass
            if time.monotonic() > deadline:
                raise NotHealed(f"{what}: not within {within_s:g} s")
            time.sleep(0.1)
