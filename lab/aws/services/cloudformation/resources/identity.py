"""AWS::IAM: roles, managed policies, inline policies."""

from __future__ import annotations

from typing import Any

from lab.aws import iam
from lab.aws.services.cloudformation.errors import ResourceError
from lab.aws.services.cloudformation.resources.base import (
    FREE,
    NUMBER,
    TAGS,
    TEXT,
    TEXTS,
    Env,
    Props,
    ResourceType,
    as_data,
    as_json,
    gone,
)


class Role(ResourceType):
    """A role with its inline and managed policies."""

    name = "AWS::IAM::Role"
    extra = {
        "AssumeRolePolicyDocument": FREE,
        "Description": TEXT,
        "ManagedPolicyArns": TEXTS,
        "MaxSessionDuration": NUMBER,
        "Path": TEXT,
        "PermissionsBoundary": TEXT,
        "Policies": [{"PolicyName": TEXT, "PolicyDocument": FREE}],
        "RoleName": TEXT,
        "Tags": TAGS,
    }
    required = frozenset({"AssumeRolePolicyDocument"})
    replacing = frozenset({"RoleName", "Path"})
    attributes = ("Arn", "RoleId")
    name_property = "RoleName"

    def create(self, env: Env, props: Props) -> str:
        name = self.named(env, props)
        settings = {key: props[key] for key in ("Description", "MaxSessionDuration", "Path", "PermissionsBoundary") if key in props}
        trust = as_json(props["AssumeRolePolicyDocument"])
        env.call("iam", "create_role", RoleName=name, AssumeRolePolicyDocument=trust, Tags=env.tag_list(props.get("Tags")), **settings)
        env.made(name)
        self._set_policies(env, name, {}, props)
        return name

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        if old["AssumeRolePolicyDocument"] != new["AssumeRolePolicyDocument"]:
            trust = as_json(new["AssumeRolePolicyDocument"])
            env.call("iam", "update_assume_role_policy", RoleName=identity, PolicyDocument=trust)
        settings = {key: new.get(key, default) for key, default in (("Description", ""), ("MaxSessionDuration", 3600))}
        if any(old.get(key) != new.get(key) for key in settings):
            env.call("iam", "update_role", RoleName=identity, **settings)
        self._set_policies(env, identity, old, new)
        given, removed = env.tag_changes(old, new)
        if given:
            env.call("iam", "tag_role", RoleName=identity, Tags=given)
        if removed:
            env.call("iam", "untag_role", RoleName=identity, TagKeys=removed)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            for policy in env.call("iam", "list_role_policies", RoleName=identity)["PolicyNames"]:
                env.call("iam", "delete_role_policy", RoleName=identity, PolicyName=policy)
            for one in env.call("iam", "list_attached_role_policies", RoleName=identity)["AttachedPolicies"]:
                env.call("iam", "detach_role_policy", RoleName=identity, PolicyArn=one["PolicyArn"])
            env.call("iam", "delete_role", RoleName=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            role = env.call("iam", "get_role", RoleName=identity)["Role"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        actual: Props = {key: role[key] for key in ("Description", "MaxSessionDuration", "Path", "RoleName") if key in role}
        actual["AssumeRolePolicyDocument"] = iam.document(role["AssumeRolePolicyDocument"])
        names = env.call("iam", "list_role_policies", RoleName=identity)["PolicyNames"]
        documents = {
            name: iam.document(env.call("iam", "get_role_policy", RoleName=identity, PolicyName=name)["PolicyDocument"]) for name in names
        }
        declared = [one["PolicyName"] for one in props.get("Policies", [])]
        ordered = [name for name in declared if name in documents] + sorted(set(documents) - set(declared))
        actual["Policies"] = [{"PolicyName": name, "PolicyDocument": documents[name]} for name in ordered]
        attached = env.call("iam", "list_attached_role_policies", RoleName=identity)["AttachedPolicies"]
        actual["ManagedPolicyArns"] = sorted(one["PolicyArn"] for one in attached)
        kept = {key: value for key, value in actual.items() if key in props}
        if sorted(props.get("ManagedPolicyArns", [])) == actual["ManagedPolicyArns"] and "ManagedPolicyArns" in props:
            kept["ManagedPolicyArns"] = props["ManagedPolicyArns"]
        return kept

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        role = env.call("iam", "get_role", RoleName=identity)["Role"]
        return {"Arn": role["Arn"], "RoleId": role["RoleId"]}

    def _set_policies(self, env: Env, role: str, old: Props, new: Props) -> None:
        before, after = ({one["PolicyName"]: as_json(one["PolicyDocument"]) for one in props.get("Policies", [])} for props in (old, new))
        for policy, text in after.items():
            if before.get(policy) != text:
                env.call("iam", "put_role_policy", RoleName=role, PolicyName=policy, PolicyDocument=text)
        for policy in sorted(set(before) - set(after)):
            env.call("iam", "delete_role_policy", RoleName=role, PolicyName=policy)
        had, wants = set(old.get("ManagedPolicyArns", [])), set(new.get("ManagedPolicyArns", []))
        for arn in sorted(wants - had):
            env.call("iam", "attach_role_policy", RoleName=role, PolicyArn=arn)
        for arn in sorted(had - wants):
            env.call("iam", "detach_role_policy", RoleName=role, PolicyArn=arn)


class ManagedPolicy(ResourceType):
    """A policy of its own, attached to roles."""

    name = "AWS::IAM::ManagedPolicy"
    extra = {"Description": TEXT, "ManagedPolicyName": TEXT, "Path": TEXT, "PolicyDocument": FREE, "Roles": TEXTS}
    required = frozenset({"PolicyDocument"})
    replacing = frozenset({"Description", "ManagedPolicyName", "Path"})
    attributes = ("PolicyArn", "PolicyId")
    name_property = "ManagedPolicyName"
    name_limit = 128

    def create(self, env: Env, props: Props) -> str:
        settings = {key: props[key] for key in ("Description", "Path") if key in props}
        made = env.call(
            "iam", "create_policy", PolicyName=self.named(env, props), PolicyDocument=as_json(props["PolicyDocument"]), **settings
        )
        arn = str(made["Policy"]["Arn"])
        env.made(arn)
        for role in props.get("Roles", []):
            env.call("iam", "attach_role_policy", RoleName=role, PolicyArn=arn)
        return arn

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        if old["PolicyDocument"] != new["PolicyDocument"]:
            versions = env.call("iam", "list_policy_versions", PolicyArn=identity)["Versions"]
            spare = [one["VersionId"] for one in versions if not one["IsDefaultVersion"]]
            if len(versions) >= 5:
                env.call("iam", "delete_policy_version", PolicyArn=identity, VersionId=spare[-1])
            document = as_json(new["PolicyDocument"])
            env.call("iam", "create_policy_version", PolicyArn=identity, PolicyDocument=document, SetAsDefault=True)
        had, wants = set(old.get("Roles", [])), set(new.get("Roles", []))
        for role in sorted(wants - had):
            env.call("iam", "attach_role_policy", RoleName=role, PolicyArn=identity)
        for role in sorted(had - wants):
            env.call("iam", "detach_role_policy", RoleName=role, PolicyArn=identity)

    def delete(self, env: Env, identity: str, props: Props) -> None:
        try:
            for role in props.get("Roles", []):
                env.call("iam", "detach_role_policy", RoleName=role, PolicyArn=identity)
            for one in env.call("iam", "list_policy_versions", PolicyArn=identity)["Versions"]:
                if not one["IsDefaultVersion"]:
                    env.call("iam", "delete_policy_version", PolicyArn=identity, VersionId=one["VersionId"])
            env.call("iam", "delete_policy", PolicyArn=identity)
        except ResourceError as error:
            if not gone(error):
                raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        try:
            version = env.call("iam", "get_policy", PolicyArn=identity)["Policy"]["DefaultVersionId"]
        except ResourceError as error:
            if gone(error):
                return None
            raise
        found = env.call("iam", "get_policy_version", PolicyArn=identity, VersionId=version)["PolicyVersion"]["Document"]
        return {**props, "PolicyDocument": iam.document(found)}

    def get(self, env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"PolicyArn": identity, "PolicyId": env.call("iam", "get_policy", PolicyArn=identity)["Policy"]["PolicyId"]}


class Policy(ResourceType):
    """An inline policy put into roles."""

    name = "AWS::IAM::Policy"
    extra = {"PolicyName": TEXT, "PolicyDocument": FREE, "Roles": TEXTS}
    required = frozenset({"PolicyName", "PolicyDocument", "Roles"})
    replacing = frozenset()
    attributes = ("Id",)

    def create(self, env: Env, props: Props) -> str:
        self._put(env, props["Roles"], props)
        return env.name()

    def update(self, env: Env, identity: str, old: Props, new: Props) -> None:
        self._put(env, new["Roles"], new)
        left = old["Roles"] if old["PolicyName"] != new["PolicyName"] else [role for role in old["Roles"] if role not in new["Roles"]]
        self.delete(env, identity, {**old, "Roles": left})

    def delete(self, env: Env, identity: str, props: Props) -> None:
        for role in props["Roles"]:
            try:
                env.call("iam", "delete_role_policy", RoleName=role, PolicyName=props["PolicyName"])
            except ResourceError as error:
                if not gone(error):
                    raise

    def read(self, env: Env, identity: str, props: Props) -> Props | None:
        for role in props["Roles"]:
            try:
                found = env.call("iam", "get_role_policy", RoleName=role, PolicyName=props["PolicyName"])["PolicyDocument"]
            except ResourceError as error:
                if gone(error):
                    return None
                raise
            if iam.document(found) != as_data(props["PolicyDocument"]):
                return {**props, "PolicyDocument": iam.document(found)}
        return dict(props)

    def get(self, _env: Env, identity: str, _props: Props) -> dict[str, Any]:
        return {"Id": identity}

    def _put(self, env: Env, roles: list[str], props: Props) -> None:
        for role in roles:
            text = as_json(props["PolicyDocument"])
            env.call("iam", "put_role_policy", RoleName=role, PolicyName=props["PolicyName"], PolicyDocument=text)


TYPES = (Role(), ManagedPolicy(), Policy())
