"""The drill itself: bring up, break, be paged, drain by the page's runbook, mend, enable, and see all of it from outside.

Each step waits for what it must see and says what it saw. A step that does not see it ends the drill; the report is written all the same.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from http.client import HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any, TypeVar

from lab.drill.record import Record, Recorder, Step, answer, authority
from lab.drill.report import write
from lab.faults import Ground
from lab.plan import STORE_NAME
from lab.sight import Sight
from lab.supervisor import LabEnded
from lab.topology import lab_topology
from lab.up import NotGreen, Teller, await_green, up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.oncall import Incident
    from lab.plan import LabPlan
    from lab.running import RunningLab
    from topology.model import Runbook

PAGE_WITHIN_S = 240.0
RUNBOOK_WITHIN_S = 300.0
DNS_WITHIN_S = 240.0
SETTLE_S = 120.0
GREEN_WITHIN_S = 600.0
FAULT = "region-down"
T = TypeVar("T")


class NotObserved(Exception):
    """What a step had to see did not happen; says what was seen instead."""


def drill(out: Path, speed: float) -> int:
    """Run the drill and write ``report.html`` and ``observations.json`` to ``out``; 0 only if everything was observed."""
    records: list[Record] = []

    def then(lab: RunningLab, teller: Teller) -> None:
        run = Drill(lab, teller)
        records.append(run.record)
        try:
            run.run()
        finally:
            lab.end_requested.set()

    code = up(speed, then=then)
    if not records:
        return code or 1
    record = records[0]
    report = write(record, out)
    print(f"report: {report}", flush=True)
    return 0 if record.ok and code == 0 else 1


class Drill:
    """One drill in a lab that is all-green."""

    def __init__(self, lab: RunningLab, teller: Teller) -> None:
        self._lab = lab
        self._teller = teller
        self._plan: LabPlan = lab.plan
        self._topology = lab_topology(lab.plan)
        self._sight = Sight(lab.plan, self._topology)
        self._ground = Ground(lab.plan, lab.supervisor)
        self._lost = next(iter(lab.plan.regions))
        self._left = [name for name in lab.plan.regions if name != self._lost]
        self.record = Record(self._lost, lab.plan.clock.speed, lab.plan.clock.now())

    def run(self) -> None:
        """All steps, in their order."""
        recorder = Recorder(self._lab, self._sight, self.record)
        recorder.start()
        try:
            with contextlib.suppress(NotObserved):
                self._steps()
        finally:
            self._lab.board.heal()
            recorder.stop()
            self.record.faults = [each.as_json() for each in self._lab.board.past()]
            self.record.pages = [incident.as_json() for incident in self._lab.desk.incidents()]

    def _steps(self) -> None:
        self._step("All is well before", self._all_green)
        self._step(f"{self._lost} is lost", self._break)
        page = self._step(f"One page names {self._lost}", self._await_page)
        self._step("The page's runbook drains it", lambda: self._follow(page))
        self._step(f"The name answers {' and '.join(self._left)} only", self._name_without_lost)
        self._step("The store serves by its name", self._store_serves)
        self._step(f"{self._lost} is back", self._heal)
        self._step("A runbook enables it again", self._enable)
        self._step("The name answers every Region", self._name_with_all)
        self._step("The page is resolved, and was the only one", self._resolved)
        self._step("All is well again", self._all_green)

    def _step(self, name: str, work: Callable[[], tuple[str, Any]]) -> Any:
        began = self._plan.clock.now()
        try:
            with self._teller.step(name, name):
                observed, result = work()
        except LabEnded:
            raise
        except NotObserved as failure:
            self._note(name, False, began, str(failure))
            self._teller.say(f"[red]✘ {name}: {failure}[/red]")
            raise
        self._note(name, True, began, observed)
        self._teller.say(f"  [dim]{observed}[/dim]")
        return result

    def _note(self, name: str, ok: bool, began: float, observed: str) -> None:
        now = self._plan.clock.now()
        self.record.steps.append(Step(name, ok, now, now - began, observed))

    # the steps

    def _all_green(self) -> tuple[str, None]:
        try:
            waited = await_green(self._lab, GREEN_WITHIN_S)
        except NotGreen as error:
            raise NotObserved(str(error)) from error
        return f"every alarm, canary, routing control and cell of the matrix is well ({waited:.0f} lab s)", None

    def _break(self) -> tuple[str, None]:
        active = self._lab.board.inject(FAULT, self._lost)
        return active.fault.sentence, None

    def _await_page(self) -> tuple[str, Incident]:
        since = self._lab.board.active()[0].since
        page = self._wait("no page came", PAGE_WITHIN_S, lambda: next(iter(self._open_pages()), None))
        if page.page is None or page.page.get("subject") != self._lost or not page.page.get("what_to_do"):
            raise NotObserved(f"the page does not name {self._lost} with what to do: {page.summary}")
        return f"“{page.summary}”, {page.opened - since:.0f} lab s after the loss, decided in {page.page['region']}", page

    def _follow(self, page: Incident) -> tuple[str, None]:
        assert page.page is not None
        todo = page.page["what_to_do"]
        self._execute(todo["region"], todo["runbook"], todo["parameters"])
        off = self._wait("the routing control is still on", DNS_WITHIN_S, lambda: self._sight.look().routing.get(self._lost) == "off")
        assert off
        return f"{todo['command']}: Success; the routing control of {self._lost} is off", None

    def _name_without_lost(self) -> tuple[str, None]:
        def only_left() -> bool:
            told = [authority(self._plan, name) for name in self._plan.regions]
            held = [answer(self._plan, name) for name in self._left]
            return all(each and self._lost not in each for each in (*told, *held))

        self._wait(f"the name still answers {self._lost}", DNS_WITHIN_S, only_left)
        return f"Route 53 and the resolvers of {', '.join(self._left)} send nobody to {self._lost}", None

    def _store_serves(self) -> tuple[str, None]:
        where = answer(self._plan, self._left[0]) or []
        statuses = [f"{page.path.partition('?')[0]} {self._get(where[0], page.path)}" for page in self._topology.pages] if where else []
        if not statuses or not all(status.endswith(" 200") for status in statuses):
            raise NotObserved(f"the store by its name: {', '.join(statuses) or 'no address'}")
        return f"{STORE_NAME}, served by {where[0]}: {', '.join(statuses)}", None

    def _heal(self) -> tuple[str, None]:
        self._lab.board.heal(FAULT)
        target = f"alb-{self._lost}"

        def seen_up() -> bool:
            view = self._sight.look()
            return all(row[target]["state"] in {"up", "degraded"} for row in view.matrix.values())

        self._wait(f"not every vantage sees {target} up", SETTLE_S * 3, seen_up)
        return f"every vantage sees {target} up again", None

    def _enable(self) -> tuple[str, None]:
        runbook: Runbook = self._topology.runbooks.enable
        parameters = {key: value.format(region=self._lost) for key, value in runbook.parameters.items()}
        self._execute(self._left[0], runbook.document, parameters)
        self._wait("the routing control is still off", DNS_WITHIN_S, lambda: self._sight.look().routing.get(self._lost) == "on")
        return f"{runbook.document} in {self._left[0]}: Success; the routing control of {self._lost} is on", None

    def _name_with_all(self) -> tuple[str, None]:
        def at_home() -> bool:
            return all(answer(self._plan, name) == [name] for name in self._plan.regions)

        self._wait("the name does not send every Region's clients home", DNS_WITHIN_S, at_home)
        return "clients of each Region are sent to their own", None

    def _resolved(self) -> tuple[str, None]:
        self._wait("the page is still open", SETTLE_S * 3, lambda: not self._open_pages())
        urgent = self._lab.desk.pages()
        if len(urgent) != 1:
            raise NotObserved(f"{len(urgent)} pages were sent: {'; '.join(incident.summary for incident in urgent)}")
        (page,) = urgent
        return f"open for {(page.resolved or page.opened) - page.opened:.0f} lab s", None

    # how

    def _open_pages(self) -> list[Incident]:
        return [page for page in self._lab.desk.pages() if page.state == "open"]

    def _wait(self, otherwise: str, within_lab_s: float, look: Callable[[], T | None]) -> T:
        """Look until there is something to see. Raises `NotObserved` with ``otherwise``."""
        deadline = self._plan.clock.now() + within_lab_s
        while True:
            if seen := look():
                return seen
            if self._lab.end_requested.is_set() or self._lab.supervisor.ended.is_set():
                raise LabEnded("the lab is ending")
            if self._plan.clock.now() > deadline:
                raise NotObserved(f"{otherwise} after {within_lab_s:.0f} lab s")
            time.sleep(0.1)

    def _execute(self, region: str, document: str, parameters: dict[str, str]) -> None:
        """Run an Automation document to its end, as the page's command does."""
        from botocore.exceptions import BotoCoreError, ClientError

        ssm = self._ground.client("ssm", region)
        try:
            values = {key: value if isinstance(value, list) else [value] for key, value in parameters.items()}
            execution = ssm.start_automation_execution(DocumentName=document, Parameters=values)["AutomationExecutionId"]

            def ended() -> Any:
                found = ssm.get_automation_execution(AutomationExecutionId=execution)["AutomationExecution"]
                return found if found["AutomationExecutionStatus"] not in {"Pending", "InProgress", "Waiting"} else None

            found = self._wait(f"{document} did not end", RUNBOOK_WITHIN_S, ended)
        except (BotoCoreError, ClientError) as error:
            raise NotObserved(f"{document} in {region}: {error}") from error
        if found["AutomationExecutionStatus"] != "Success":
            why = found.get("FailureMessage", "")
            raise NotObserved(f"{document} in {region}: {found['AutomationExecutionStatus']} {why}")

    def _get(self, region: str, path: str) -> int | str:
        """The status of a page of the store, asked of ``region``'s address by the store's name."""
        with _connection(self._plan, region) as connection:
            try:
                connection.request("GET", path, headers={"Host": STORE_NAME})
                return connection.getresponse().status
            except (OSError, HTTPException) as error:
                return type(error).__name__


@contextlib.contextmanager
def _connection(plan: LabPlan, region: str) -> Iterator[HTTPSConnection]:
    """A TLS connection to a Region's load balancer that checks the certificate for the store's name."""
    context = ssl.create_default_context(cafile=str(plan.ca_file))

    class ByName(HTTPSConnection):
        def connect(self) -> None:
            import socket

            raw = socket.create_connection((plan.regions[region].ip, plan.alb_port), timeout=5)
            self.sock = context.wrap_socket(raw, server_hostname=STORE_NAME)

    connection = ByName(STORE_NAME, plan.alb_port, context=context)
    try:
        yield connection
    finally:
        connection.close()
