"""CloudWatch Synthetics: canaries that really run, with their states, runs, dry runs, groups and tags.

Reference: https://docs.aws.amazon.com/AmazonSynthetics/latest/APIReference/. Canaries run in `lab.aws.synthetics_runner`; what is refused
is in `lab.aws.synthetics_checks`. Changes of state take lab time, so that callers meet CREATING, STARTING, UPDATING, STOPPING as on AWS.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import uuid
import zipfile
from typing import TYPE_CHECKING, Any

from lab.aws import synthetics_checks as checks
from lab.aws.service import AwsError
from lab.aws.support import page, read_object, stamp, trusts, workspace
from lab.aws.synthetics_model import Canary, Config, DryRun, Group, Run, State
from lab.aws.synthetics_runner import Runner
from lab.aws.synthetics_runtimes import BY_NAME, RUNTIMES, midnight

if TYPE_CHECKING:
    from lab.aws.service import Context, World

CREATING_S, STARTING_S, UPDATING_S, STOPPING_S, DELETING_S = 2.0, 1.0, 2.0, 1.0, 1.0
MAX_GROUPS = 20
MAX_GROUP_RESOURCES = 10
MAX_TAGS = 50
_SETTLED = {State.READY, State.RUNNING, State.STOPPED, State.ERROR}
_STARTABLE = {State.READY, State.STOPPED}
_DELETABLE = {State.READY, State.STOPPED, State.ERROR}


class Service:
    """The operations of Synthetics."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.RLock()
        self._canaries: dict[tuple[str, str], Canary] = {}
        self._groups: dict[str, Group] = {}
        self._folder = workspace(world, "synthetics")
        self._runner = Runner(world, self._folder, self._announce)

    def close(self) -> None:
        """End every canary's process."""
        self._runner.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # ---- canaries

    def create_canary(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The canary is CREATING, then READY, or ERROR where its code or role is unusable."""
        name = params["Name"]
        config = checks.new_config(params, ctx.now)
        tags = dict(params.get("Tags", {}))
        _check_tags(tags)
        with self._lock:
            if (ctx.region, name) in self._canaries:
                raise AwsError("ConflictException", f"A canary with the name {name} already exists", 409)
            canary = Canary(name, ctx.region, ctx.account, config, tags, ctx.now, ctx.now)
            canary.become(State.CREATING, code="CREATE_IN_PROGRESS")
            self._canaries[ctx.region, name] = canary
            shown = canary.shown()
        self._runner.later(CREATING_S, lambda: self._created(canary, params["Code"]))
        return {"Canary": shown}

    def update_canary(self, ctx: Context, params: dict[str, Any]) -> None:
        """The canary is UPDATING, then what it was before; one that runs starts its schedule anew."""
        with self._lock:
            canary = self._canary(ctx, params["Name"])
            if canary.state not in _SETTLED:
                raise AwsError("ConflictException", f"Canary is in a state that can't be modified: {canary.state}", 409)
            if "DryRunId" in params:
                config = self._tried(canary, params)
            else:
                config = checks.changed(canary.config, params, ctx.now)
            before = State.READY if canary.state is State.ERROR else canary.state
            canary.become(State.UPDATING, code="UPDATE_IN_PROGRESS")
            canary.modified = ctx.now
            self._runner.stop(canary)
        self._runner.later(UPDATING_S, lambda: self._updated(canary, config, params.get("Code"), before))

    def delete_canary(self, ctx: Context, params: dict[str, Any]) -> None:
        """Only a canary that is READY, STOPPED or in ERROR can go. Its log group, artifacts and role stay."""
        with self._lock:
            canary = self._canary(ctx, params["Name"])
            if canary.state not in _DELETABLE:
                raise AwsError("ConflictException", f"Canary is in a state that can't be deleted: {canary.state}", 409)
            canary.become(State.DELETING, code="DELETE_IN_PROGRESS")
        self._runner.later(DELETING_S, lambda: self._deleted(canary))

    def start_canary(self, ctx: Context, params: dict[str, Any]) -> None:
        """STARTING, then RUNNING with the first run at once."""
        with self._lock:
            canary = self._canary(ctx, params["Name"])
            if canary.state not in _STARTABLE:
                raise AwsError("ConflictException", f"Canary is not in a startable state: {canary.state}", 409)
            canary.become(State.STARTING)
        self._runner.later(STARTING_S, lambda: self._started(canary))

    def stop_canary(self, ctx: Context, params: dict[str, Any]) -> None:
        """No more runs; one that is under way completes."""
        with self._lock:
            canary = self._canary(ctx, params["Name"])
            if canary.state is not State.RUNNING:
                raise AwsError("ConflictException", f"Canary is not in a stoppable state: {canary.state}", 409)
            canary.become(State.STOPPING)
            self._runner.stop(canary)
        self._runner.later(STOPPING_S, lambda: self._stopped(canary))

    def get_canary(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """A canary, or with DryRunId the configuration of that dry run."""
        with self._lock:
            canary = self._canary(ctx, params["Name"])
            identity = params.get("DryRunId")
            return {"Canary": canary.shown(_dry_run(canary, identity) if identity else None)}

    def describe_canaries(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The Region's canaries, 20 a page; names that do not exist are left out."""
        with self._lock:
            found = [canary.shown() for canary in self._wanted(ctx, params.get("Names"))]
        shown, token = page(found, params.get("NextToken"), params.get("MaxResults", 20))
        return {"Canaries": shown, "NextToken": token}

    def describe_canaries_last_run(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The last completed run of each canary that has one."""
        with self._lock:
            pairs = [(canary, _last_run(canary)) for canary in self._wanted(ctx, params.get("Names"))]
        found = [{"CanaryName": canary.name, "LastRun": run.shown()} for canary, run in pairs if run]
        shown, token = page(found, params.get("NextToken"), params.get("MaxResults", 100))
        return {"CanariesLastRun": shown, "NextToken": token}

    def get_canary_runs(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Runs, the latest first."""
        with self._lock:
            canary = self._canary(ctx, params["Name"])
            runs = list(canary.runs)
        dry = params.get("RunType") == "DRY_RUN" or "DryRunId" in params
        wanted = [run.shown() for run in runs if bool(run.dry_run) == dry and params.get("DryRunId") in (None, run.dry_run)]
        shown, token = page(wanted, params.get("NextToken"), params.get("MaxResults", 100))
        return {"CanaryRuns": shown, "NextToken": token}

    def describe_runtime_versions(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All Python runtimes, the latest first."""
        versions = [
            {
                "VersionName": runtime.name,
                "Description": runtime.description,
                "ReleaseDate": stamp(midnight(runtime.released)),
                "DeprecationDate": stamp(midnight(runtime.deprecated)) if runtime.deprecated else None,
            }
            for runtime in RUNTIMES
        ]
        shown, token = page(versions, params.get("NextToken"), params.get("MaxResults", 100))
        return {"RuntimeVersions": shown, "NextToken": token}

    def start_canary_dry_run(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Run once with other settings; UpdateCanary with the DryRunId takes them over."""
        with self._lock:
            canary = self._canary(ctx, params["Name"])
            if canary.state not in _SETTLED:
                raise AwsError("ConflictException", f"Canary is in a state that can't be modified: {canary.state}", 409)
            if any(one.status == "RUNNING" for one in canary.dry_runs.values()):
                raise AwsError("ConflictException", "A dry run of this canary is in progress", 409)
            config = checks.changed(canary.config, params, ctx.now)
            if not BY_NAME[config.runtime].retries:
                raise checks.invalid(f"Dry runs are not supported by runtime version {config.runtime}")
            problem = self._fetch_code(canary, config, params.get("Code"))
            if problem:
                raise checks.invalid(problem)
            dry_run = DryRun(str(uuid.uuid4()), config)
            canary.dry_runs[dry_run.id] = dry_run

        def done(run: Run) -> None:
            dry_run.status = run.state

        self._runner.try_out(canary, dry_run, done)
        return {"DryRunConfig": {"DryRunId": dry_run.id, "LastDryRunExecutionStatus": dry_run.status}}

    # ---- what follows a call, in the background

    def _created(self, canary: Canary, code: dict[str, Any]) -> None:
        problem = self._problem_with_role(canary, canary.config) or self._fetch_code(canary, canary.config, code)
        with self._lock:
            if problem:
                canary.become(State.ERROR, problem, "CREATE_FAILED")
            else:
                canary.become(State.READY)
        self._announce_state(canary, "CREATING")

    def _updated(self, canary: Canary, config: Config, code: dict[str, Any] | None, before: State) -> None:
        problem = self._problem_with_role(canary, config) or self._fetch_code(canary, config, code)
        with self._lock:
            if not problem:
                canary.config = config
            canary.become(before, problem, "ROLLBACK_COMPLETE" if problem else "UPDATE_COMPLETE")
            if before is State.RUNNING:
                self._runner.start(canary)
        self._announce_state(canary, "UPDATING")

    def _started(self, canary: Canary) -> None:
        with self._lock:
            if canary.state is not State.STARTING:
                return
            canary.started = self._world.clock.now()
            canary.become(State.RUNNING)
            self._runner.start(canary)
        self._announce_state(canary, "STARTING")

    def _stopped(self, canary: Canary) -> None:
        if self._runner.running(canary):
            self._runner.later(STOPPING_S, lambda: self._stopped(canary))
            return
        with self._lock:
            canary.stopped = self._world.clock.now()
            canary.become(State.STOPPED)
        self._announce_state(canary, "STOPPING")

    def _deleted(self, canary: Canary) -> None:
        self._runner.forget(canary)
        with self._lock:
            self._canaries.pop((canary.region, canary.name), None)
            for group in self._groups.values():
                if canary.arn in group.resources:
                    group.resources.remove(canary.arn)
        for bundle in self._folder.glob(f"{canary.id}-*.zip"):
            bundle.unlink(missing_ok=True)

    def _problem_with_role(self, canary: Canary, config: Config) -> str:
        if trusts(self._world, canary.region, config.role, "lambda.amazonaws.com"):
            return ""
        return (
            "The role defined for the function cannot be assumed by Lambda. "
            "(Service: AWSLambda; Status Code: 400; Error Code: InvalidParameterValueException)"
        )

    def _fetch_code(self, canary: Canary, config: Config, code: dict[str, Any] | None) -> str:
        """Read the canary's code into ``config``; what is wrong with it, or nothing. The same key and version are not read again."""
        if not code:
            return ""
        source = (code.get("S3Bucket", ""), code.get("S3Key", ""), code.get("S3Version", ""))
        if not code.get("ZipFile") and config.bundle is not None and source in (config.source, ("", "", "")):
            return ""
        try:
            if code.get("ZipFile"):
                content, config.source = bytes(code["ZipFile"]), None
            else:
                content, config.source = read_object(self._world, canary.region, *source[:2], source[2] or None), source
        except AwsError as error:
            return f"Error occurred while GetObject. S3 Error Code: {error.code}. S3 Error Message: {error.message}"
        bundle = self._folder / f"{canary.id}-{uuid.uuid4().hex[:12]}.zip"
        bundle.write_bytes(content)
        if not zipfile.is_zipfile(bundle):
            bundle.unlink()
            return "Could not unzip uploaded file. Please check your file, then try to upload again."
        config.bundle = bundle
        config.version += canary.config is not config
        return ""

    def _announce(self, canary: Canary, run: Run) -> None:
        """EventBridge hears of every run."""
        outcome = "Successful" if run.state == "PASSED" else "Failure"
        detail = {
            "account-id": canary.account,
            "canary-id": canary.id,
            "canary-name": canary.name,
            "canary-run-id": run.id,
            "artifact-location": run.artifacts,
            "test-run-status": run.state,
            "state-reason": run.reason,
            "canary-run-timeline": {"started": run.started, "completed": run.completed},
            "message": f"Test run status is {run.state}",
        }
        self._emit(canary, f"Synthetics Canary TestRun {outcome}", detail)

    def _announce_state(self, canary: Canary, previous: str) -> None:
        detail = {
            "account-id": canary.account,
            "canary-id": canary.id,
            "canary-name": canary.name,
            "current-state": str(canary.state),
            "previous-state": previous,
            "source-location": canary.shown()["Code"]["SourceLocationArn"],
            "updated-on": self._world.clock.now(),
            "message": canary.reason or f"Canary state is {canary.state}",
        }
        self._emit(canary, "Synthetics Canary Status Change", detail)

    def _emit(self, canary: Canary, kind: str, detail: dict[str, Any]) -> None:
        try:
            events = self._world.service("events")
        except LookupError:
            return
        events.emit(canary.region, "aws.synthetics", kind, detail, [canary.arn])

    # ---- groups

    def create_group(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Groups are global: every Region sees them."""
        tags = dict(params.get("Tags", {}))
        _check_tags(tags)
        with self._lock:
            if any(group.name == params["Name"] for group in self._groups.values()):
                raise AwsError("ConflictException", f"A group with the name {params['Name']} already exists", 409)
            if len(self._groups) >= MAX_GROUPS:
                raise AwsError("ServiceQuotaExceededException", f"An account can have at most {MAX_GROUPS} groups", 402)
            arn = f"arn:aws:synthetics:{ctx.region}:{ctx.account}:group:{secrets.token_hex(8)}"
            group = self._groups[arn] = Group(params["Name"], arn, ctx.now, ctx.now, tags)
        return {"Group": group.shown()}

    def get_group(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """By name, id or ARN."""
        with self._lock:
            return {"Group": self._group(params).shown()}

    def delete_group(self, _ctx: Context, params: dict[str, Any]) -> None:
        """The group goes, its canaries stay."""
        with self._lock:
            del self._groups[self._group(params).arn]

    def list_groups(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """All groups."""
        with self._lock:
            found = [{"Id": one.id, "Name": one.name, "Arn": one.arn} for one in self._groups.values()]
        shown, token = page(found, params.get("NextToken"), params.get("MaxResults", 20))
        return {"Groups": shown, "NextToken": token}

    def associate_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Put a canary of this Region into a group."""
        arn = params["ResourceArn"]
        with self._lock:
            group = self._group(params)
            self._canary_by_arn(ctx, arn)
            if arn in group.resources:
                raise AwsError("ConflictException", f"{arn} is already associated with the group", 409)
            if len(group.resources) >= MAX_GROUP_RESOURCES:
                raise AwsError("ServiceQuotaExceededException", f"A group can have at most {MAX_GROUP_RESOURCES} canaries", 402)
            group.resources.append(arn)
            group.modified = ctx.now

    def disassociate_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Take a canary out of a group."""
        with self._lock:
            group = self._group(params)
            if params["ResourceArn"] not in group.resources:
                raise AwsError("ResourceNotFoundException", f"{params['ResourceArn']} is not associated with the group", 404)
            group.resources.remove(params["ResourceArn"])
            group.modified = ctx.now

    def list_group_resources(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The canaries in a group."""
        with self._lock:
            found = list(self._group(params).resources)
        shown, token = page(found, params.get("NextToken"), params.get("MaxResults", 20))
        return {"Resources": shown, "NextToken": token}

    def list_associated_groups(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """The groups a canary is in."""
        with self._lock:
            self._canary_by_arn(ctx, params["ResourceArn"])
            groups = [one for one in self._groups.values() if params["ResourceArn"] in one.resources]
        found = [{"Id": one.id, "Name": one.name, "Arn": one.arn} for one in groups]
        shown, token = page(found, params.get("NextToken"), params.get("MaxResults", 20))
        return {"Groups": shown, "NextToken": token}

    # ---- tags

    def tag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Add or replace tags of a canary or group."""
        with self._lock:
            holder = self._tagged(ctx, params["ResourceArn"])
            tags = holder.tags | params["Tags"]
            _check_tags(tags)
            holder.tags = tags

    def untag_resource(self, ctx: Context, params: dict[str, Any]) -> None:
        """Remove tags of a canary or group."""
        with self._lock:
            holder = self._tagged(ctx, params["ResourceArn"])
            holder.tags = {key: value for key, value in holder.tags.items() if key not in params["TagKeys"]}

    def list_tags_for_resource(self, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Tags of a canary or group."""
        with self._lock:
            return {"Tags": dict(self._tagged(ctx, params["ResourceArn"]).tags)}

    # ---- what the operations have in common

    def _canary(self, ctx: Context, name: str) -> Canary:
        canary = self._canaries.get((ctx.region, name))
        if canary is None:
            raise AwsError("ResourceNotFoundException", f"Canary not found: {name}", 404)
        return canary

    def _canary_by_arn(self, ctx: Context, arn: str, code: str = "ResourceNotFoundException") -> Canary:
        prefix, _, name = arn.rpartition(":")
        canary = self._canaries.get((ctx.region, name))
        if canary is None or prefix != f"arn:aws:synthetics:{ctx.region}:{ctx.account}:canary":
            raise AwsError(code, f"Resource not found: {arn}", 404)
        return canary

    def _tagged(self, ctx: Context, arn: str) -> Canary | Group:
        return self._groups.get(arn) or self._canary_by_arn(ctx, arn, "NotFoundException")

    def _group(self, params: dict[str, Any]) -> Group:
        wanted = params["GroupIdentifier"]
        for group in self._groups.values():
            if wanted in (group.name, group.id, group.arn):
                return group
        raise AwsError("ResourceNotFoundException", f"Group not found: {wanted}", 404)

    def _wanted(self, ctx: Context, names: list[str] | None) -> list[Canary]:
        found = [canary for (region, _), canary in sorted(self._canaries.items()) if region == ctx.region]
        return [canary for canary in found if not names or canary.name in names]

    def _tried(self, canary: Canary, params: dict[str, Any]) -> Config:
        """The configuration of a finished dry run, for UpdateCanary; only a Schedule may come with it."""
        others = set(params) - {"Name", "DryRunId", "Schedule"}
        if others:
            raise checks.invalid(f"Only Schedule can be updated together with a DryRunId, not {', '.join(sorted(others))}")
        dry_run = _dry_run(canary, params["DryRunId"])
        if dry_run.status == "RUNNING":
            raise AwsError("ConflictException", "The dry run is in progress", 409)
        return checks.changed(dry_run.config, {key: params[key] for key in ("Schedule",) if key in params}, self._world.clock.now())


def _dry_run(canary: Canary, identity: str) -> DryRun:
    found = canary.dry_runs.get(identity)
    if found is None:
        raise AwsError("ResourceNotFoundException", f"Dry run not found: {identity}", 404)
    return found


def _last_run(canary: Canary) -> Run | None:
    return next((run for run in canary.runs if run.completed is not None and not run.dry_run), None)


def _check_tags(tags: dict[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise checks.invalid(f"At most {MAX_TAGS} tags can be given")
    if any(key.lower().startswith("aws:") for key in tags):
        raise checks.invalid("Tag keys must not start with aws:")
