"""What is rendered: reproducible, accepted by an independent CloudFormation linter, least privilege, within limits and budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from parliament import analyze_policy_string

from stacks import templates
from stacks.cost import estimate, sample, total
from stacks.desired import Desired, desired, write
from stacks.lint import lint
from topology import UnusableInput, load, loads

EXAMPLE = Path(__file__).parents[2] / "topology.yaml"

COMPOSITES = "RESOURCE_STAR - ['cloudwatch:DescribeAlarms']"
"""DescribeAlarms tells of composite alarms only where the right is scoped to "*" (its page in the CloudWatch API reference)."""


@pytest.fixture(scope="module")
def state() -> Desired:
    """The example, rendered."""
    return desired(load(EXAMPLE))


def test_the_same_input_gives_the_same_bytes(state: Desired, tmp_path: Path) -> None:
    """Two renderings are equal, file by file."""
    first = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in write(state, tmp_path / "a")}
    second = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in write(desired(load(EXAMPLE)), tmp_path / "b")}
    assert first == second
    assert Path("us-west-2/canaries.template.json") in first


@pytest.mark.slow
def test_an_independent_linter_finds_nothing(state: Desired, tmp_path: Path) -> None:
    """cfn-lint accepts every template."""
    templates = [str(path) for path in write(state, tmp_path) if path.name.endswith(".template.json")]
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--regions", "us-east-1", "us-west-2", "--", *templates]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_policies_are_least_privilege(state: Desired) -> None:
    """An independent IAM linter finds nothing; no action has a wildcard, and a star as resource only where IAM knows no resource."""
    for region in state.regions.values():
        for part in region.parts.values():
            for name, resource in part.template["Resources"].items():
                if resource["Type"] != "AWS::IAM::Role":
                    continue
                for policy in resource["Properties"]["Policies"]:
                    document = policy["PolicyDocument"]
                    findings = [str(finding) for finding in analyze_policy_string(json.dumps(document)).findings]
                    assert [finding for finding in findings if COMPOSITES not in finding] == [], name
                    for statement in document["Statement"]:
                        assert not any("*" in action for action in statement["Action"])
                        if statement["Resource"] == ["*"]:
                            assert statement["Sid"] in ("Metrics", "Traces", "NetworkRead", "Matrix")
                        if statement["Sid"] == "Metrics":
                            assert statement["Condition"]


def test_a_canary_may_not_touch_anothers_runs(state: Desired) -> None:
    """Each canary writes below its own prefix only."""
    template = state.regions["us-east-1"].parts["canaries"].template
    statements = template["Resources"]["ProbeRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    written = next(statement for statement in statements if statement["Sid"] == "Artifacts")
    assert written["Resource"] == ["arn:aws:s3:::crosswatch-retail-123456789012-us-east-1/runs/probe/*"]


def test_composites_wait_for_what_they_name(state: Desired) -> None:
    """CloudWatch refuses a composite whose child does not exist: each waits for all of its children."""
    resources = state.regions["us-west-2"].parts["alarms"].template["Resources"]
    names = {resource["Properties"]["AlarmName"]: key for key, resource in resources.items() if "AlarmName" in resource["Properties"]}
    for resource in resources.values():
        rule = resource["Properties"].get("AlarmRule", "")
        for name, key in names.items():
            if f"({name})" in rule:
                assert key in resource["DependsOn"]


def test_the_slower_canaries_are_rendered_when_they_have_a_schedule() -> None:
    """Journey and ledger get a canary, a role and an item in the estimate."""
    journeys = "\njourneys: {journey_schedule: rate(15 minutes), ledger_schedule: rate(5 minutes)}\n"
    more = desired(loads(EXAMPLE.read_text() + journeys))
    resources = more.regions["us-west-2"].parts["canaries"].template["Resources"]
    assert {"ProbeCanary", "JourneyCanary", "LedgerCanary", "LedgerRole"} <= set(resources)
    assert {"journey: runs", "ledger: runs"} <= {item.name for item in estimate(more)}


def test_dashboards_are_deployed_once(state: Desired) -> None:
    """They are global: two Regions that deploy one name overwrite each other."""
    kinds = [
        resource["Type"]
        for region in state.regions.values()
        for part in region.parts.values()
        for resource in part.template["Resources"].values()
    ]
    assert kinds.count("AWS::CloudWatch::Dashboard") == 1


def test_the_estimate_keeps_the_budget(state: Desired) -> None:
    """Run fees at most $130 and all in at most $260 a month for two Regions; the sample's layout costs $622.08 a Region in runs alone."""
    items = estimate(state)
    runs = sum(item.dollars for item in items if item.name.endswith(": runs"))
    assert runs <= 130
    assert total(items) <= 260
    assert sample(state.topology)[0].dollars == pytest.approx(2 * 622.08)


def test_the_samples_layout_is_itemised_like_ours(state: Desired) -> None:
    """Fees, Lambda, logs, artifacts, metrics, alarms: what ours is compared with; it has more runs, and shorter ones."""
    items = {item.name: item.dollars for item in sample(state.topology)}
    assert set(items) == {
        "canary runs of the AWS sample",
        "sample: Lambda",
        "sample: logs",
        "sample: artifacts",
        "sample: metrics",
        "sample: alarms",
        "sample: composite alarms",
        "sample: dashboards",
    }
    assert all(dollars > 0 for dollars in items.values())
    assert total(sample(state.topology)) == pytest.approx(1422.3, abs=0.1)


def test_a_ledger_pays_for_its_requests() -> None:
    """Its metrics go to every Region, its book to S3."""
    more = desired(loads(EXAMPLE.read_text() + "\njourneys: {ledger_schedule: rate(5 minutes)}\n"))
    items = {item.name: item for item in estimate(more)}
    runs = items["ledger: runs"].quantity
    assert runs == 2 * 30 * 288
    assert items["ledger: PutMetricData"].quantity == 2 * runs
    assert items["ledger: book"].dollars == pytest.approx(runs * (5 * 0.005 + 0.0004) / 1000)


@pytest.mark.parametrize(
    ("schedule", "journey_s", "ledger_s"), [("rate(1 minute)", 60, 60), ("rate(3 minutes)", 120, 180), ("rate(1 hour)", 120, 240)]
)
def test_no_run_may_last_beyond_the_next(schedule: str, journey_s: int, ledger_s: int) -> None:
    """Synthetics refuses a timeout that is longer than the time to the next run."""
    journeys = f"\njourneys: {{journey_schedule: {schedule}, ledger_schedule: {schedule}}}\n"
    resources = desired(loads(EXAMPLE.read_text() + journeys)).regions["us-west-2"].parts["canaries"].template["Resources"]
    timeouts = {name: resources[f"{name}Canary"]["Properties"]["RunConfig"]["TimeoutInSeconds"] for name in ("Probe", "Journey", "Ledger")}
    assert timeouts == {"Probe": 59, "Journey": journey_s, "Ledger": ledger_s}


@pytest.mark.parametrize("other", ["retail-a", "retail-A", "retail_a"])
def test_alarms_that_cannot_be_told_apart_are_refused(state: Desired, other: str) -> None:
    """One name, or one logical id: the second would stand in place of the first, and nobody would be told."""
    item = {"AlarmName": "retail-a", "MetricName": "M", "Namespace": "N"}
    with pytest.raises(UnusableInput, match="cannot be told apart: retail-a, "):
        templates.alarms(state.topology, "us-west-2", [item, {**item, "AlarmName": other}], "code/n.zip", "notifier.handler", {})


def test_queues_of_one_name_in_two_brokers_each_have_their_alarm() -> None:
    """A second broker's queue does not take the place of the first's."""
    second = "  returns:\n    brokers: {us-east-1: retail-returns-us-east-1, us-west-2: retail-returns-us-west-2}\n    queues: [orders]\n"
    both = desired(loads(EXAMPLE.read_text().replace("    queues: [orders]\n", "    queues: [orders]\n" + second)))
    for region in both.regions.values():
        resources = region.parts["alarms"].template["Resources"].values()
        brokers = [_broker(each) for each in resources if "unconsumed" in each["Properties"].get("AlarmName", "")]
        assert sorted(brokers) == [f"retail-orders-{region.region}", f"retail-returns-{region.region}"]


def _broker(alarm: dict[str, Any]) -> str:
    """The broker that a queue's alarm looks at."""
    stats = [query["MetricStat"] for query in alarm["Properties"]["Metrics"] if "MetricStat" in query]
    return next(str(each["Value"]) for each in stats[0]["Metric"]["Dimensions"] if each["Name"] == "Broker")


def test_a_queue_may_be_called_anything_that_cloudwatch_takes() -> None:
    """What means something in YAML or in a template is a name like any other."""
    odd = "a: b # {{ c }} 'd'"
    region = desired(loads(EXAMPLE.read_text().replace("queues: [orders]", f'queues: ["{odd}"]'))).regions["us-west-2"]
    assert any(odd in item["AlarmName"] for item in region.definitions)


def test_the_services_metrics_are_counted_as_they_are_sent(state: Desired) -> None:
    """The exporters' default: one series a service and Region for customers' requests, one a Region for synthetic ones."""
    [counted] = [item.quantity for item in estimate(state) if item.name == "metrics of the services"]
    assert counted == (len(state.topology.services) + 1) * len(state.topology.regions)


def test_lint_recommends_a_third_vantage_and_is_then_content() -> None:
    """Two vantages get a note, three none."""
    assert [problem.check for problem in lint(desired(load(EXAMPLE)))] == ["placement/third-vantage"]
    assert (
        lint(
            desired(
                loads(
                    EXAMPLE.read_text()
                    + "\nvantages: {eu-west-1: {network: {subnets: [subnet-0cc00001], security_groups: [sg-0cc00001]}}}\n"
                )
            )
        )
        == []
    )


def test_lint_finds_writes_without_a_way() -> None:
    """A canary that should write over a peered endpoint needs one to be named."""
    text = EXAMPLE.read_text().replace(
        "security_groups: [sg-0aa00001]}", "security_groups: [sg-0aa00001], writes_through: peered-endpoint}"
    )
    checks = [problem.check for problem in lint(desired(loads(text)))]
    assert checks == ["placement/cross-region-writes", "placement/database-reads", "placement/third-vantage"]


def test_lint_asks_for_a_way_to_the_databases_of_other_regions() -> None:
    """Behind peered endpoints RDS has to be named, too; once it is, and CloudWatch with it, only the shared path is left to warn of."""
    text = EXAMPLE.read_text().replace(
        "security_groups: [sg-0aa00001]}", "security_groups: [sg-0aa00001], writes_through: peered-endpoint}"
    )
    here = "us-east-1: {monitoring: 'https://vpce-0.monitoring.us-east-1.vpce.amazonaws.com'}"
    cloudwatch = f"\nendpoints: {{{here}, us-west-2: {{monitoring: 'https://vpce-1.monitoring.us-west-2.vpce.amazonaws.com'%s}}}}\n"
    (found,) = [each for each in lint(desired(loads(text + cloudwatch % ""))) if each.check == "placement/database-reads"]
    assert "the probe in us-east-1" in found.what
    assert "us-west-2" in found.what
    assert found.severity == "warning"
    assert "endpoints.us-west-2.rds" in found.mend
    checks = [each.check for each in lint(desired(loads(text + cloudwatch % ", rds: 'https://vpce-2.rds.us-west-2.vpce.amazonaws.com'")))]
    assert checks == ["placement/shared-path", "placement/third-vantage"]


def test_only_the_probe_may_ask_about_databases_and_only_about_the_topologys(state: Desired) -> None:
    """Two read actions, each on the topology's own clusters, in every Region that holds one; no other canary has them."""
    for region in state.regions.values():
        found = {}
        for part in region.parts.values():
            for name, resource in part.template["Resources"].items():
                if resource["Type"] == "AWS::IAM::Role":
                    statements = [each for policy in resource["Properties"]["Policies"] for each in policy["PolicyDocument"]["Statement"]]
                    if asked := {action: each["Resource"] for each in statements for action in each["Action"] if action.startswith("rds:")}:
                        found[name] = asked
        (rights,) = found.values()
        assert rights["rds:DescribeGlobalClusters"] == [
            "arn:aws:rds::123456789012:global-cluster:retail-catalog",
            "arn:aws:rds::123456789012:global-cluster:retail-orders",
        ]
        assert len(rights["rds:DescribeDBClusters"]) == 4
        assert "arn:aws:rds:us-east-1:123456789012:cluster:retail-orders-us-east-1" in rights["rds:DescribeDBClusters"]
        assert set(rights) == {"rds:DescribeGlobalClusters", "rds:DescribeDBClusters"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["lint", "--offline"], 0, "third Region"),
        (["lint", "--offline", "-t", "nowhere.yaml"], 2, "there is no such file"),
        (["cost", "--json"], 0, "622.08 a Region"),
        (["render", "--out"], 2, "--out"),
        (["failover", "report", "--from", "yesterday", "--to", "today"], 2, "is not a time"),
        (["dashboards", "preview", "--format", "gif"], 2, "html or png"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_the_command_line_answers(arguments: list[str], code: int, words: str) -> None:
    """Exit codes and messages; never a traceback."""
    root = EXAMPLE.parent
    result = subprocess.run([sys.executable, "deploy.py", *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code, result.stderr
    assert words in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
