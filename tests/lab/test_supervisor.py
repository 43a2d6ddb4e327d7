"""The supervisor, its warden and the state directory, with real processes: what starts, what is held, and that nothing is ever left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.admin import Refusal
from lab.plan import DIRECTORY_VARIABLE, LabPlan, state_directory
from lab.process import ProcessSpec
from lab.state import LabIsRunning, StateDirectory, processes_of, read_owner, sweep
from lab.supervisor import StartError, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
FAMILY = textwrap.dedent("""
    # a process with a child in a session of its own, whose own child is an orphan that ignores every polite signal
    import os, signal, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(s, signal.SIG_IGN)
            if os.fork() != 0:
                os._exit(0)
        time.sleep(600)
    time.sleep(600)
""")


def wait_for(what: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Supervisor]:
    state = StateDirectory.claim(tmp_path / "lab")
    supervisor = Supervisor(LabPlan.make(tmp_path / "lab"), state)
    try:
        yield supervisor
    finally:
        supervisor.close()
        assert not list(processes_of(state.identity))
        assert not (tmp_path / "lab").exists()


def states(lab: Supervisor) -> dict[str, str]:
    return {status.name: status.state for status in lab.status()}


def test_processes_start_in_the_order_of_their_needs(lab: Supervisor, tmp_path: Path) -> None:
    """A process starts only when what it needs is ready; its preparation runs once, before the first start."""
    seen: list[str] = []
    flag = tmp_path / "flag"
    writer = (sys.executable, "-c", f"import time, pathlib; time.sleep(.2); pathlib.Path({str(flag)!r}).touch(); time.sleep(600)")
    lab.start(
        [
            ProcessSpec("b", SLEEPER, after=("a",), prepare=lambda: seen.append(f"b sees {flag.exists()}")),
            ProcessSpec("a", writer, ready=flag.exists),
        ]
    )
    assert seen == ["b sees True"]
    assert states(lab) == {"a": "ready", "b": "ready"}
    lab.restart("b")
    assert seen == ["b sees True"]


def test_a_process_that_cannot_start_says_why(lab: Supervisor) -> None:
    """The error names the process and shows the end of its log."""
    with pytest.raises(StartError, match=r"(?s)bad ended with code 3 .*no such luck"):
        lab.start([ProcessSpec("bad", (sys.executable, "-c", "print('no such luck'); raise SystemExit(3)"), ready=lambda: False)])
    with pytest.raises(StartError, match="missing cannot be started"):
        lab.start([ProcessSpec("missing", ("/no/such/program",))])
    with pytest.raises(StartError, match=r"slow was not ready within 0\.3 s"):
        lab.start([ProcessSpec("slow", SLEEPER, ready=lambda: False, ready_within_s=0.3)])


def test_a_refusal_means_not_yet_and_a_mistake_is_raised(lab: Supervisor) -> None:
    """A part that answers "not now" is asked again; an error in the question itself reaches who started the process."""
    answers = iter([Refusal(503, "not now"), ConnectionRefusedError("nobody"), None])

    def ready() -> bool:
        if error := next(answers):
            raise error
        return True

    lab.start([ProcessSpec("patient", SLEEPER, ready=ready)])
    assert states(lab) == {"patient": "ready"}
    with pytest.raises(ZeroDivisionError):
        lab.start([ProcessSpec("mistaken", SLEEPER, ready=lambda: bool(1 / 0))])


def test_two_faults_may_hold_the_same_process(lab: Supervisor) -> None:
    """A held process comes back when the last fault that holds it is healed, not before."""
    lab.start([ProcessSpec("r/a", SLEEPER, region="r"), ProcessSpec("r/b", SLEEPER, region="r"), ProcessSpec("c", SLEEPER)])
    lab.hold(["r/a"], "one")
    lab.hold(lab.names(region="r"), "two")
    assert states(lab) == {"r/a": "stopped", "r/b": "stopped", "c": "ready"}
    lab.release(lab.names(region="r"), "two")
    assert states(lab) == {"r/a": "stopped", "r/b": "ready", "c": "ready"}
    lab.release(["r/a"], "one")
    assert states(lab) == {"r/a": "ready", "r/b": "ready", "c": "ready"}


def test_a_release_that_failed_can_be_tried_again(lab: Supervisor, tmp_path: Path) -> None:
    """What ended, and what was not ready in time, is started by the next one; until then nothing claims that it runs."""
    allowed = tmp_path / "allowed"
    allowed.touch()
    ends = (sys.executable, "-c", f"import os, time\nif not os.path.exists({str(allowed)!r}): raise SystemExit(3)\ntime.sleep(600)")
    lab.start(
        [
            ProcessSpec("r/ends", ends, ready=allowed.exists, ready_within_s=5.0),
            ProcessSpec("r/late", SLEEPER, ready=allowed.exists, ready_within_s=0.3),
        ]
    )
    lab.hold(["r/ends", "r/late"], "fault")
    allowed.unlink()
    with pytest.raises(StartError):
        lab.release(["r/ends", "r/late"], "fault")
    assert wait_for(lambda: set(states(lab).values()) == {"failed"})
    allowed.touch()
    lab.release(["r/ends", "r/late"], "fault")
    assert states(lab) == {"r/ends": "ready", "r/late": "ready"}
    assert all(status.pid is not None and status.held_by == () for status in lab.status())


def test_what_a_fault_froze_is_not_waited_for(lab: Supervisor) -> None:
    """A process whose predecessor comes back frozen starts beside it."""
    lab.start([ProcessSpec("r/node", SLEEPER, region="r"), ProcessSpec("r/keeper", SLEEPER, region="r", after=("r/node",))])
    lab.freeze(["r/node"], "hanging")
    lab.hold(lab.names(region="r"), "down")
    lab.release(lab.names(region="r"), "down")
    assert states(lab) == {"r/node": "frozen", "r/keeper": "ready"}
    lab.thaw(["r/node"], "hanging")
    assert states(lab)["r/node"] == "ready"


def test_a_kill_takes_everything_below_along(lab: Supervisor) -> None:
    """Children in other sessions and process groups go with their parent; orphans go with the lab."""
    lab.start([ProcessSpec("family", (sys.executable, "-c", FAMILY)), ProcessSpec("other", SLEEPER)])
    identity = lab._state.identity
    assert wait_for(lambda: len(list(processes_of(identity))) >= 5)  # warden's environment counts too
    lab.hold(["family"], "fault")
    assert states(lab)["family"] == "stopped"
    assert states(lab)["other"] == "ready"


def test_what_is_frozen_does_not_move_until_it_is_thawed(lab: Supervisor, tmp_path: Path) -> None:
    """SIGSTOP and SIGCONT reach the process; its port would stay open."""
    beat = tmp_path / "beat"
    program = f"import time\nwhile True: open({str(beat)!r}, 'a').write('x'); time.sleep(.01)"
    lab.start([ProcessSpec("beat", (sys.executable, "-c", program), ready=beat.exists)])
    lab.freeze(["beat"], "fault")
    time.sleep(0.1)
    size = beat.stat().st_size
    time.sleep(0.2)
    assert beat.stat().st_size == size
    lab.thaw(["beat"], "fault")
    assert wait_for(lambda: beat.stat().st_size > size)


def test_a_task_that_crashes_is_restarted(lab: Supervisor) -> None:
    """With ``restart``, as ECS does; without it a crash is a crash."""
    lab.start([ProcessSpec("task", SLEEPER, restart=True), ProcessSpec("plain", SLEEPER)])
    for name in ("task", "plain"):
        lab.kill(name)
    assert wait_for(lambda: states(lab) == {"task": "ready", "plain": "failed"})
    assert next(status.starts for status in lab.status() if status.name == "task") == 2


LAB = textwrap.dedent("""
    import sys, threading
    from pathlib import Path
    from lab.plan import LabPlan
    from lab.process import ProcessSpec
    from lab.state import StateDirectory
    from lab.supervisor import Supervisor
    directory, family = Path(sys.argv[1]), sys.argv[2]
    state = StateDirectory.claim(directory)
    state.own("http://127.0.0.1:1/")
    plan = LabPlan.make(directory)
    plan.save()
    lab = Supervisor(plan, state)
    print(state.identity, lab._warden.pid, flush=True)
    lab.start(ProcessSpec(f"p{i}", (sys.executable, "-c", family), after=(f"p{i-1}",) if i else ()) for i in range(6))
    print("up", flush=True)
    threading.Event().wait()
""")


def run_lab(directory: Path) -> tuple[subprocess.Popen[str], str, int]:
    process = subprocess.Popen([sys.executable, "-c", LAB, str(directory), FAMILY], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    identity, warden = process.stdout.readline().split()
    return process, identity, int(warden)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.1, 0.2, None])
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_supervisor_dies(tmp_path: Path, after_s: float | None, signal_: signal.Signals) -> None:
    """At any moment of the start and afterwards: no process and no file survives the supervisor."""
    lab, identity, _ = run_lab(tmp_path / "lab")
    assert lab.stdout is not None
    if after_s is None:
        assert lab.stdout.readline() == "up\n"
    else:
        time.sleep(after_s)
    lab.send_signal(signal_)
    lab.wait()
    assert wait_for(lambda: not (tmp_path / "lab").exists())
    assert wait_for(lambda: not list(processes_of(identity)))


def test_a_dead_lab_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    """Supervisor and warden killed at the same time leave a directory; the next lab ends what is left and starts in an empty one."""
    lab, identity, warden = run_lab(tmp_path / "lab")
    assert lab.stdout is not None
    assert lab.stdout.readline() == "up\n"
    os.kill(warden, signal.SIGKILL)
    lab.kill()
    lab.wait()
    (tmp_path / "lab" / "postgres").mkdir(exist_ok=True)
    assert read_owner(tmp_path / "lab") is not None
    state = StateDirectory.claim(tmp_path / "lab")
    assert not list(processes_of(identity))
    assert sorted(entry.name for entry in state.path.iterdir()) == ["logs", "tmp"]
    state.remove()


def test_the_wardens_death_ends_the_lab(tmp_path: Path) -> None:
    """If only the warden dies, the supervisor notices and finishes its work."""
    state = StateDirectory.claim(tmp_path / "lab")
    supervisor = Supervisor(LabPlan.make(tmp_path / "lab"), state)
    supervisor.start([ProcessSpec("a", (sys.executable, "-c", FAMILY))])
    os.kill(supervisor._warden.pid, signal.SIGKILL)
    assert supervisor.ended.wait(5)
    supervisor.close()
    assert not list(processes_of(state.identity))
    assert not (tmp_path / "lab").exists()


def test_a_second_lab_is_told_of_the_first(tmp_path: Path) -> None:
    """The message says where the running lab is, whose, its console, and how to stop it; the first one is not disturbed."""
    lab, identity, _ = run_lab(tmp_path / "lab")
    try:
        with pytest.raises(LabIsRunning, match=rf"running in .*lab since .* \(pid {lab.pid}\), console http://127.0.0.1:1/.*lab down"):
            StateDirectory.claim(tmp_path / "lab", patience_s=0.2)
        assert list(processes_of(identity))
    finally:
        lab.kill()
        lab.wait()
        assert wait_for(lambda: not (tmp_path / "lab").exists())


def test_a_directory_that_is_not_a_labs_is_not_touched(tmp_path: Path) -> None:
    """A mistaken CROSSWATCH_LAB_DIR does not cost anybody their files."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OSError, match="does not belong to a lab"):
        StateDirectory.claim(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_reused_pid_is_not_killed(tmp_path: Path) -> None:
    """A stale directory that names the pid of somebody else's process: that process lives on."""
    with subprocess.Popen(SLEEPER) as stranger:
        try:
            directory = tmp_path / "lab"
            directory.mkdir()
            (directory / "owner.json").write_text(json.dumps({"pid": stranger.pid, "since": 1.0, "identity": "gone", "console": ""}))
            StateDirectory.claim(directory).remove()
            assert sweep("gone") == []
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_the_state_directory_is_absolute_whatever_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's processes run in other folders, where a relative path means another directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DIRECTORY_VARIABLE, "some/lab")
    assert state_directory() == tmp_path / "some" / "lab"
    assert LabPlan.make(Path("some/lab")).directory == str(tmp_path / "some" / "lab")


@pytest.mark.parametrize("named", ["precious", "/precious"])
def test_a_warden_takes_no_directory_but_the_one_that_is_locked(tmp_path: Path, named: str) -> None:
    """Neither a relative path, which would be another's from where it runs, nor a directory that is not the lab's."""
    precious, mine = tmp_path / "precious", tmp_path / "mine"
    precious.mkdir()
    mine.mkdir()
    lock = os.open(mine, os.O_RDONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lab.warden", "0", str(lock), str(precious) if named.startswith("/") else named],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(lock)
    assert done.returncode == 1
    assert "directory" in done.stderr
    assert precious.exists()


def test_a_directory_that_took_the_place_of_the_labs_stays(tmp_path: Path) -> None:
    """Somebody moved the lab's away and put another one there: that one is not the lab's to remove."""
    state = StateDirectory.claim(tmp_path / "lab")
    supervisor = Supervisor(LabPlan.make(tmp_path / "lab"), state)
    (tmp_path / "lab").rename(tmp_path / "moved")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "thesis.tex").write_text("years of work")
    supervisor.close()
    assert (tmp_path / "lab" / "thesis.tex").exists()
    assert not list(processes_of(state.identity))


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """A link that leads there, and, where that can be tried, one that another user owns."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is a link"):
        StateDirectory.claim(tmp_path / "link")
    if os.geteuid() == 0:
        os.chown(tmp_path / "elsewhere", 65534, 65534)
        with pytest.raises(OSError, match="belongs to another user"):
            StateDirectory.claim(tmp_path / "elsewhere")
