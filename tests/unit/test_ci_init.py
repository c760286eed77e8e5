"""`make ci-init`, step by step: what it asks AWS and GitHub for, what it writes, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decant.ci import answers, init
from decant.clouds.aws import ci
from decant.clouds.aws.formation import Formation
from decant.errors import CloudApiError, StackError
from decant.settings import project

KEY = "awskms://alias/decant-state?region=eu-central-1&context_stack="
BUCKET = "decant-state-123456789012-eu-central-1"
PROVIDER = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
ENVIRONMENTS = ["staging-preview", "staging", "production-preview", "production", "nightly"]


class Aws:
    """The session of an administrator: CloudFormation, and what is looked at beside it, in memory."""

    region = "eu-central-1"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = ""
        self.template: dict[str, Any] | None = None
        self.proposed: tuple[str, dict[str, Any]] | None = None
        self.providers: dict[str, list[str]] = {}
        self.bucket_status = 404
        self.refused = ""
        self.fails = ""

    def ask(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        self.calls.append(operation)
        if self.refused:
            raise CloudApiError(self.refused, status=403, code="AccessDenied")
        answer: dict[str, Any] = getattr(self, operation)(**arguments)
        return answer

    def get_caller_identity(self) -> dict[str, Any]:
        return {"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/ann"}

    def list_open_id_connect_providers(self) -> dict[str, Any]:
        return {"OpenIDConnectProviderList": [{"Arn": arn} for arn in self.providers]}

    def get_open_id_connect_provider(self, OpenIDConnectProviderArn: str) -> dict[str, Any]:
        return {"ClientIDList": self.providers[OpenIDConnectProviderArn]}

    def head_bucket(self, Bucket: str) -> dict[str, Any]:
        assert Bucket == BUCKET
        if self.bucket_status != 200:
            raise CloudApiError("no", status=self.bucket_status, code=str(self.bucket_status))
        return {}

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if not self.status:
            raise CloudApiError(f"Stack with id {StackName} does not exist", status=400, code="ValidationError")
        outputs = [
            {"OutputKey": name, "OutputValue": f"arn:aws:iam::123456789012:role/{name}"}
            for name in (self.template or {}).get("Outputs", {})
        ]
        return {"Stacks": [{"StackStatus": self.status, **({"Outputs": outputs} if outputs else {})}]}

    def describe_stack_resource(self, StackName: str, LogicalResourceId: str) -> dict[str, Any]:
        if LogicalResourceId not in (self.template or {}).get("Resources", {}):
            raise CloudApiError("does not exist", status=400, code="ValidationError")
        return {}

    def create_change_set(self, **given: Any) -> dict[str, Any]:
        assert given["StackName"] == "decant-ci"
        assert given["Capabilities"] == ["CAPABILITY_NAMED_IAM"]
        self.proposed = (given["ChangeSetType"], json.loads(given["TemplateBody"]))
        if given["ChangeSetType"] == "CREATE":
            self.status = "REVIEW_IN_PROGRESS"
        return {}

    def describe_change_set(self, **_: Any) -> dict[str, Any]:
        assert self.proposed
        before = (self.template or {}).get("Resources", {})
        after = self.proposed[1]["Resources"]
        if before == after:
            return {"Status": "FAILED", "StatusReason": "The submitted information didn't contain changes."}
        changes = [("Add", name) for name in after if name not in before]
        changes += [("Modify", name) for name in after if name in before and after[name] != before[name]]
        return {
            "Status": "CREATE_COMPLETE",
            "Changes": [
                {"ResourceChange": {"Action": what, "LogicalResourceId": name, "ResourceType": after[name]["Type"],
                                    "Replacement": "False"}}
                for what, name in changes
            ],
        }  # fmt: skip

    def delete_change_set(self, **_: Any) -> dict[str, Any]:
        self.proposed = None
        return {}

    def delete_stack(self, **_: Any) -> dict[str, Any]:
        self.status = ""
        return {}

    def execute_change_set(self, **_: Any) -> dict[str, Any]:
        assert self.proposed
        if self.fails:
            self.status = "ROLLBACK_COMPLETE"
            return {}
        self.status, self.template = f"{self.proposed[0]}_COMPLETE", self.proposed[1]
        return {}

    def describe_stack_events(self, **_: Any) -> dict[str, Any]:
        return {"StackEvents": [
            {"LogicalResourceId": "Look", "ResourceStatus": "CREATE_FAILED",
             "ResourceStatusReason": "Resource creation cancelled"},
            {"LogicalResourceId": "RoleStaging", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": self.fails},
        ]}  # fmt: skip


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    made = Aws()
    monkeypatch.setattr(ci, "connect", lambda provider, environ: made)
    monkeypatch.setattr(ci, "Formation", lambda session, name: Formation(session, name, sleep=lambda _: None))
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two stacks on AWS."""
    monkeypatch.setattr(project, "PROJECT", tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: decant\n")
    for stack in ("staging", "production"):
        (tmp_path / f"Pulumi.{stack}.yaml").write_text("config:\n  decant:cloud: aws\n  aws:region: eu-central-1\n")
    return tmp_path


class GhProgram:
    """A stand-in for `gh`: a script that notes its words and input, and answers from files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = folder / "gh"
        script.write_text(
            '#!/bin/sh\nread -r body 2>/dev/null\necho "$* $body" >>"$0.said"\n'
            'key=$(echo "$1 $2" | tr -c "a-z0-9\\n" -)\n'
            '[ -e "$0.$key" ] && { cat "$0.$key"; exit 0; }\n'
            'case "$1 $2" in api\\ repos/*) echo "gh: Not Found (HTTP 404)" >&2; exit 1;; esac\n'
            '[ -e "$0.refuses" ] && { cat "$0.refuses" >&2; exit 1; }\nexit 0\n'
        )
        script.chmod(0o755)
        self.answer("api user", "4711\n")

    def answer(self, words: str, text: str) -> None:
        key = "".join(char if char.isascii() and (char.islower() or char.isdigit()) else "-" for char in words)
        (self.folder / f"gh.{key}").write_text(text)

    @property
    def said(self) -> list[str]:
        file = self.folder / "gh.said"
        return [line.strip() for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GhProgram:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    return GhProgram(bin_folder)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """The checks that were started, each with the state's address."""
    started: list[tuple[list[str], str]] = []
    run = subprocess.run

    def note(argv: list[str], **options: Any) -> Any:
        if "decant.cli" not in argv:
            return run(argv, **options)
        started.append((argv[argv.index("decant.cli") + 1 :], options["env"]["PULUMI_BACKEND_URL"]))
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(subprocess, "run", note)
    return started


Say = Callable[..., str]


@pytest.fixture
def say(folder: Path, aws: Aws, checks: object, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(**environ: str) -> str:
        init.run({"REPOSITORY": "octo/shop", **environ})
        return capsys.readouterr().out

    return run


# ------------------------------------------------------------------------------------------------ AWS


def test_nothing_is_made_without_consent(say: Say, aws: Aws, folder: Path, gh: GhProgram) -> None:
    before = {path.name: path.read_text() for path in folder.glob("Pulumi.*")}
    with pytest.raises(StackError, match=r"^Nothing was changed\.$"):
        say()
    assert "execute_change_set" not in aws.calls
    assert (aws.status, aws.proposed) == ("", None), "the record of a stack that was never made is gone, too"
    assert {path.name: path.read_text() for path in folder.glob("Pulumi.*")} == before
    assert not any("PUT" in line or "variable" in line for line in gh.said)


def test_all_steps_set_up_a_new_account(
    say: Say, aws: Aws, folder: Path, gh: GhProgram, checks: list[tuple[list[str], str]]
) -> None:
    said = say(YES="yes")
    assert aws.status == "CREATE_COMPLETE"
    assert "Provider" in aws.template["Resources"]  # type: ignore[index]
    assert (
        "  + S3::Bucket           StateBucket              holds the state: every version is kept for 90 days" in said
    )
    for stack in ("staging", "production"):
        text = (folder / f"Pulumi.{stack}.yaml").read_text()
        assert text == f"secretsprovider: {KEY}{stack}\nconfig:\n  decant:cloud: aws\n  aws:region: eu-central-1\n"
    url = f"s3://{BUCKET}?region=eu-central-1"
    assert f"variable set PULUMI_BACKEND_URL --repo octo/shop --body {url}" in gh.said
    assert 'variable set PREVIEW_STACKS --repo octo/shop --body ["staging", "production"]' in gh.said
    assert 'variable set DEPLOY_STACKS --repo octo/shop --body ["staging", "production"]' in gh.said
    for environment in ENVIRONMENTS:
        role = "Role" + "".join(part.capitalize() for part in environment.split("-"))
        assert (
            f"variable set AWS_ROLE --repo octo/shop --env {environment} --body arn:aws:iam::123456789012:role/{role}"
            in gh.said
        )
    roles = "--role=arn:aws:iam::123456789012:role/Role"
    assert checks == [
        (["--read-only", f"{roles}StagingPreview", "check-account", "staging"], url),
        ([f"{roles}Staging", "check-account", "staging"], url),
        (["--read-only", f"{roles}ProductionPreview", "check-account", "production"], url),
        ([f"{roles}Production", "check-account", "production"], url),
    ]
    assert "git add Pulumi.staging.yaml Pulumi.production.yaml" in said


def test_a_second_run_changes_nothing(say: Say, aws: Aws, folder: Path, gh: GhProgram) -> None:
    say(YES="yes")
    before = (folder / "Pulumi.staging.yaml").read_text()
    for environment in ENVIRONMENTS:
        gh.answer(f"api repos/octo/shop/environments/{environment}", "{}")
    said = say(YES="yes")
    assert aws.calls.count("execute_change_set") == 1
    assert aws.status == "CREATE_COMPLETE"
    assert "The CloudFormation stack decant-ci is as it should be." in said
    assert "Pulumi.staging.yaml has it." in said
    assert (folder / "Pulumi.staging.yaml").read_text() == before
    assert sum("--method PUT" in line for line in gh.said) == len(ENVIRONMENTS), "the rules of environments stay"
    assert f"Environments that are there keep their rules: {', '.join(sorted(ENVIRONMENTS))}" in said


def test_one_more_stack_changes_the_account(say: Say, aws: Aws, folder: Path, gh: GhProgram) -> None:
    say(YES="yes", STACKS="staging")
    said = say(YES="yes", STACKS="staging production")
    assert aws.status == "UPDATE_COMPLETE"
    assert "  + IAM::Role            RoleProduction " in said
    assert "  ~ IAM::Role            RoleNightly " in said
    assert "RoleStaging " not in said


def test_a_provider_of_the_account_is_used_and_its_audience_checked(say: Say, aws: Aws, gh: GhProgram) -> None:
    aws.providers = {PROVIDER: ["other"]}
    with pytest.raises(StackError, match=r"(?s)does not take tokens for sts\.amazonaws\.com.*add-client-id-to-open-id"):
        say(YES="yes")
    aws.providers = {PROVIDER.replace("token.actions", "token2.actions"): [], PROVIDER: ["sts.amazonaws.com"]}
    say(YES="yes")
    assert "Provider" not in aws.template["Resources"]  # type: ignore[index]


def test_credentials_that_are_refused_are_told_what_to_do(say: Say, aws: Aws, gh: GhProgram) -> None:
    aws.refused = "no identity-based policy allows the sts:GetCallerIdentity action"
    with pytest.raises(StackError, match=r"(?s)AWS refuses: no identity.*administrator.*PRINT=yes.*STATE=spaces"):
        say(YES="yes")


@pytest.mark.parametrize("status", [200, 403])
def test_a_bucket_of_somebody_else_is_said_before(say: Say, aws: Aws, gh: GhProgram, status: int) -> None:
    aws.bucket_status = status
    with pytest.raises(StackError, match=rf"There is a bucket {BUCKET} already.*\n.*make ci-init BUCKET=NAME"):
        say(YES="yes")
    assert aws.proposed is None


def test_what_cloudformation_cannot_make_is_told_with_its_reason(say: Say, aws: Aws, gh: GhProgram) -> None:
    aws.fails = "Role with name decant-ci-staging already exists."
    with pytest.raises(StackError) as raised:
        say(YES="yes")
    assert str(raised.value) == (
        "CloudFormation could not make stack decant-ci (ROLLBACK_COMPLETE), and has taken everything back:\n"
        "    RoleStaging: Role with name decant-ci-staging already exists."
    )
    with pytest.raises(StackError, match="aws cloudformation delete-stack --stack-name decant-ci"):
        say(YES="yes")


def test_the_template_is_printed_without_any_account(say: Say, aws: Aws, gh: GhProgram) -> None:
    printed = json.loads(say(PRINT="yes", PROVIDER=PROVIDER))
    assert aws.calls == []
    assert printed["Resources"]["StateBucket"]["Properties"]["BucketName"] == {
        "Fn::Sub": "decant-state-${AWS::AccountId}-eu-central-1"
    }
    trust = printed["Resources"]["RoleStaging"]["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]
    assert trust["Principal"] == {"Federated": PROVIDER}


# ------------------------------------------------------------------------------------------------ stack files


def test_a_stack_with_a_passphrase_is_told_how_to_move(say: Say, folder: Path, gh: GhProgram) -> None:
    file = folder / "Pulumi.staging.yaml"
    file.write_text("encryptionsalt: v1:abc\n" + file.read_text())
    before = file.read_text()
    said = say(YES="yes")
    assert file.read_text() == before
    assert f"pulumi stack change-secrets-provider '{KEY}staging' --stack staging" in said
    assert f"pulumi login 's3://{BUCKET}?region=eu-central-1'" in said


def test_a_stack_with_another_key_keeps_it(say: Say, folder: Path, gh: GhProgram) -> None:
    file = folder / "Pulumi.staging.yaml"
    file.write_text("secretsprovider: gcpkms://mine\n" + file.read_text())
    assert "Pulumi.staging.yaml has another key, which stays: gcpkms://mine" in say(YES="yes")
    assert file.read_text().startswith("secretsprovider: gcpkms://mine\n")


def test_a_token_in_a_stacks_file_is_pointed_out(say: Say, folder: Path, gh: GhProgram) -> None:
    (folder / "Pulumi.staging.yaml").write_text(
        "config:\n  decant:cloud: digitalocean\n  digitalocean:token:\n    secure: v1:x\n"
    )
    said = say(YES="yes")
    assert "Pulumi.staging.yaml holds digitalocean:token, so that previews have it, too." in said
    assert "pulumi config rm digitalocean:token --stack staging" in said
    secrets = [line.strip() for line in said.splitlines() if "gh secret set" in line]
    assert secrets == [
        f"gh secret set DIGITALOCEAN_TOKEN --repo octo/shop --env {name}"
        for name in ("staging-preview", "staging", "nightly")
    ]
    assert "In CI, in environment staging-preview: make check-account STACK=staging FOR=preview" in said


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ("decant:domain: Example.COM.", ["example.com", "_*.example.com", "www.example.com", "_*.www.example.com"]),
        ("decant:domain: staging.example.com", ["staging.example.com", "_*.staging.example.com"]),
        ("decant:domain: example.com\n  decant:redirects: []", ["example.com", "_*.example.com"]),
        ('decant:domain: example.com\n  decant:redirects: \'["a.example.com", "example.org"]\'',
         ["example.com", "_*.example.com", "a.example.com", "_*.a.example.com"]),
        ("decant:domain: example.com\n  decant:redirects:\n    - b.example.com",
         ["example.com", "_*.example.com", "b.example.com", "_*.b.example.com"]),
    ],
)  # fmt: skip
def test_a_stack_with_a_zone_may_change_the_records_of_its_names(
    say: Say, folder: Path, gh: GhProgram, settings: str, names: list[str]
) -> None:
    file = folder / "Pulumi.staging.yaml"
    file.write_text(f"{file.read_text()}  decant:dnsZone: example.com\n  {settings}\n")
    made = json.loads(say(PRINT="yes"))["Resources"]
    statements = made["RoleStaging"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    (own,) = [one for one in statements if "route53:ChangeResourceRecordSets" in one["Action"]]
    assert own["Condition"] == {
        "ForAllValues:StringLike": {"route53:ChangeResourceRecordSetsNormalizedRecordNames": names},
        "Null": {"route53:ChangeResourceRecordSetsNormalizedRecordNames": "false"},
    }
    assert json.dumps(made).count('"route53:ChangeResourceRecordSets"') == 1


def test_a_name_that_is_a_pattern_gets_no_role(say: Say, folder: Path, gh: GhProgram) -> None:
    file = folder / "Pulumi.staging.yaml"
    file.write_text(file.read_text() + "  decant:dnsZone: example.com\n  decant:domain: '*.example.com'\n")
    with pytest.raises(
        StackError, match=r'^Pulumi\.staging\.yaml: decant:domain is "\*\.example\.com": must be a host name such'
    ):
        say(PRINT="yes")


def test_review_stacks_have_a_role_and_a_key_of_their_own(say: Say, aws: Aws, folder: Path, gh: GhProgram) -> None:
    (folder / "Pulumi.review.yaml").write_text("config:\n  decant:cloud: aws\n")
    say(YES="yes")
    assert "PolicyReview" in aws.template["Resources"]  # type: ignore[index]
    assert (folder / "Pulumi.review.yaml").read_text().startswith(f"secretsprovider: {KEY}review\n")
    said = say(PRINT="yes", REVIEWS="no")
    assert "PolicyReview" not in json.loads(said)["Resources"]


# ------------------------------------------------------------------------------------------------ GitHub


def given_roles(gh: GhProgram) -> list[str]:
    """The environments that get a role to log in with."""
    return [line.partition("--env ")[2].partition(" ")[0] for line in gh.said if "variable set AWS_ROLE" in line]


def body_of(gh: GhProgram, environment: str) -> dict[str, Any]:
    (line,) = [one for one in gh.said if f"PUT repos/octo/shop/environments/{environment} --input -" in one]
    found: dict[str, Any] = json.loads(line.partition("--input - ")[2])
    return found


@pytest.mark.parametrize(("cloud", "told"), [("digitalocean", True), ("aws", False)])
def test_a_token_that_every_branch_gets_is_pointed_out(
    say: Say, folder: Path, gh: GhProgram, cloud: str, told: bool
) -> None:
    (folder / "Pulumi.review.yaml").write_text(f"config:\n  decant:cloud: {cloud}\n")
    assert ("Every branch may use the environment review, and a token of DigitalOcean" in say(YES="yes")) is told


def test_production_waits_for_a_person_and_deploys_come_from_main_alone(say: Say, gh: GhProgram) -> None:
    say(YES="yes")
    reviewers = [{"type": "User", "id": 4711}]
    branches = {"protected_branches": False, "custom_branch_policies": True}
    assert body_of(gh, "staging-preview") == {"reviewers": None, "deployment_branch_policy": None}
    assert body_of(gh, "staging") == {"reviewers": None, "deployment_branch_policy": branches}
    assert body_of(gh, "production-preview") == {"reviewers": reviewers, "deployment_branch_policy": None}
    assert body_of(gh, "production") == {"reviewers": reviewers, "deployment_branch_policy": branches}
    assert body_of(gh, "nightly") == {"reviewers": None, "deployment_branch_policy": branches}
    policies = [one for one in gh.said if "deployment-branch-policies" in one]
    assert policies == [
        f"api --silent --method POST repos/octo/shop/environments/{name}/deployment-branch-policies -f name=main"
        for name in ("staging", "production", "nightly")
    ]


def test_an_environment_without_its_rules_is_told(
    folder: Path, aws: Aws, checks: object, gh: GhProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    """A workflow that names an environment makes it, without rules, and anybody who may push can do that before."""
    branches = {"protected_branches": False, "custom_branch_policies": True}
    reviewers = [{"type": "branch_policy"}, {"type": "required_reviewers"}]
    for name, found in {
        "staging": {"protection_rules": [{"type": "branch_policy"}], "deployment_branch_policy": branches},
        "staging-preview": {"protection_rules": [], "deployment_branch_policy": None},
        "production": {"protection_rules": reviewers, "deployment_branch_policy": branches},
        "production-preview": {"protection_rules": [], "deployment_branch_policy": None},
        "nightly": {"protection_rules": [], "deployment_branch_policy": None},
    }.items():
        gh.answer(f"api repos/octo/shop/environments/{name}", json.dumps(found))
    assert init.run({"REPOSITORY": "octo/shop", "YES": "yes"}) == 1
    told = [line.strip() for line in capsys.readouterr().out.splitlines() if "NOT PROTECTED" in line]
    page = "Set its rules: https://github.com/octo/shop/settings/environments (docs/ci.md)"
    assert told == [
        "NOT PROTECTED: the environment production-preview was there before, and nobody has to approve its jobs."
        f" {page}; until then it gets no AWS_ROLE",
        f"NOT PROTECTED: the environment nightly was there before, and every branch may use it. {page}",
    ]
    assert given_roles(gh) == ["staging-preview", "staging", "production", "nightly"]
    gh.answer("api repos/octo/shop/environments/production", "{}")
    init.run({"REPOSITORY": "octo/shop", "YES": "yes"})
    both = "the environment production was there before, and every branch may use it and nobody has to approve its jobs"
    assert both in capsys.readouterr().out


def test_the_subject_is_what_github_says(say: Say, aws: Aws, gh: GhProgram) -> None:
    gh.answer("api repos/octo/shop/actions/oidc/customization/sub", '{"sub_claim_prefix": "repo:octo@11/shop@22"}')
    assert "its tokens begin with repo:octo@11/shop@22" in say(YES="yes")
    trust = aws.template["Resources"]["RoleStaging"]["Properties"]["AssumeRolePolicyDocument"]  # type: ignore[index]
    condition = trust["Statement"][0]["Condition"]["StringEquals"]
    assert condition["token.actions.githubusercontent.com:sub"] == "repo:octo@11/shop@22:environment:staging"
    assert "its tokens begin with repo:mine" in say(YES="yes", SUBJECT="repo:mine")


def test_what_github_refuses_is_told_and_the_rest_is_done(say: Say, gh: GhProgram) -> None:
    (gh.folder / "gh.refuses").write_text("HTTP 422: required reviewers need another plan\n")
    gh.answer("auth status", "")
    said = say(YES="yes")
    assert "Not done: the environment production, with a reviewer and branch main alone. GitHub says: HTTP 422" in said
    assert "Not done: the role of nightly." in said


def test_a_plan_without_reviewers_keeps_the_rule_about_branches(
    folder: Path, aws: Aws, checks: object, gh: GhProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    """GitHub refuses the whole request, and would make the environment without any rule at the first deploy."""
    script = gh.folder / "gh"
    refuse = 'case "$body" in *4711*) echo "HTTP 422: reviewers need another plan" >&2; exit 1;; esac\n'
    script.write_text(script.read_text().replace("key=$(", refuse + "key=$(", 1))
    gh.answer("auth status", "")
    assert init.run({"REPOSITORY": "octo/shop", "YES": "yes"}) == 1
    said = capsys.readouterr().out
    assert said.count("Done without a reviewer: jobs of this environment wait for nobody.") == 1
    assert "Not done: the environment production-preview, with a reviewer. GitHub says: HTTP 422" in said
    assert said.count("NOT PROTECTED") == 1
    assert "NOT PROTECTED: GitHub refuses a reviewer for production-preview, so that every branch may use it." in said
    assert "make ci-init STACKS='staging'" in said
    assert given_roles(gh) == ["staging-preview", "staging", "production", "nightly"]
    address = "api --silent --method PUT repos/octo/shop/environments/production --input - "
    bodies = [json.loads(line.removeprefix(address)) for line in gh.said if line.startswith(address)]
    branches = {"protected_branches": False, "custom_branch_policies": True}
    assert [one["reviewers"] for one in bodies] == [[{"type": "User", "id": 4711}], None]
    assert all(one["deployment_branch_policy"] == branches for one in bodies)


def test_a_preview_that_every_branch_may_use_gets_no_secret(
    folder: Path, aws: Aws, checks: object, gh: GhProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Pulumi.production.yaml").write_text("config:\n  decant:cloud: digitalocean\n")
    script = gh.folder / "gh"
    refuse = 'case "$body" in *4711*) echo "HTTP 422: reviewers need another plan" >&2; exit 1;; esac\n'
    script.write_text(script.read_text().replace("key=$(", refuse + "key=$(", 1))
    init.run({"REPOSITORY": "octo/shop", "YES": "yes"})
    said = capsys.readouterr().out
    secrets = [line.strip() for line in said.splitlines() if "gh secret set" in line]
    assert secrets == [
        f"gh secret set DIGITALOCEAN_TOKEN --repo octo/shop --env {name}" for name in ("production", "nightly")
    ]


def test_without_gh_the_commands_are_printed(
    say: Say, gh: GhProgram, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = say(YES="yes")
    assert "gh variable set AWS_ROLE --repo octo/shop --env staging --body arn:aws:iam" in said
    assert '"id": "NUMBER"' in said
    assert "These are yours to run" in said


def test_gitlab_gets_its_variables_shown(say: Say, aws: Aws, gh: GhProgram) -> None:
    said = say(YES="yes", REPOSITORY="gitlab.com/group/sub/shop")
    assert "its tokens begin with project_path:group/sub/shop" in said
    assert "AWS_ROLE             arn:aws:iam::123456789012:role/RoleStaging   (environment scope staging)" in said
    assert gh.said == []
    trust = aws.template["Resources"]["RoleStaging"]["Properties"]["AssumeRolePolicyDocument"]  # type: ignore[index]
    assert trust["Statement"][0]["Condition"] == {
        "StringEquals": {
            "gitlab.com:aud": "sts.amazonaws.com",
            "gitlab.com:sub": "project_path:group/sub/shop:ref_type:branch:ref:main",
        }
    }


# ------------------------------------------------------------------------------------------------ what it is given


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("git@github.com:octo/shop.git", ("github.com", "octo/shop")),
        ("https://github.com/octo/shop", ("github.com", "octo/shop")),
        ("https://ann:token@github.com/octo/shop.git", ("github.com", "octo/shop")),
        ("ssh://git@github.com:22/octo/shop.git", ("github.com", "octo/shop")),
        ("octo/shop", ("github.com", "octo/shop")),
        ("https://gitlab.example.org/a/b/c.git", ("gitlab.example.org", "a/b/c")),
    ],
)
def test_a_repository_is_known_by_any_of_gits_addresses(address: str, known: tuple[str, str]) -> None:
    assert answers.repository_address({"REPOSITORY": address}) == known


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"REPOSITORY": "https://git.example.org/a/b"}, r"The repository is at git\.example\.org; make ci-init knows"),
        ({"REPOSITORY": "nothing"}, "Which repository CI is for is not known"),
        ({"STACKS": "qa"}, r"STACKS has qa, and there is no Pulumi\.qa\.yaml; there are: production, staging\."),
        ({"STATE": "spaces"}, "STATE is spaces, and a stack is on AWS"),
    ],
)
def test_what_cannot_be_set_up_is_said_with_the_command(
    say: Say, gh: GhProgram, environ: dict[str, str], said: str
) -> None:
    with pytest.raises(StackError, match=rf"(?s){said}.*make ci-init"):
        say(YES="yes", **environ)


def test_without_aws_the_state_goes_to_spaces(say: Say, aws: Aws, folder: Path, gh: GhProgram) -> None:
    for stack in ("staging", "production"):
        (folder / f"Pulumi.{stack}.yaml").write_text("config:\n  decant:cloud: digitalocean\n")
    said = say(YES="yes", STATE="spaces")
    assert aws.calls == []
    assert "gh secret set PULUMI_CONFIG_PASSPHRASE --repo octo/shop --env production" in said
    assert "gh secret set SPACES_SECRET_ACCESS_KEY --repo octo/shop --env staging-preview" in said
    assert (folder / "Pulumi.staging.yaml").read_text() == "config:\n  decant:cloud: digitalocean\n"
