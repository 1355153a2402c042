"""
What the API refuses, and how it says so: one table from the rooms' exceptions to DTR's codes.

The body of every refusal is ``{"errors": [{"code", "message", "detail"}]}``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from pydantic.alias_generators import to_camel

from dtr.accounts import (
    AccountInUse,
    AccountNameInvalid,
    AccountUnknown,
    BadCredentials,
    LastAdministrator,
    MemberUnknown,
    NameTaken,
    NotAnOrganization,
    NotAUser,
    NotGrantable,
    PasswordInvalid,
    PlaceUnknown,
    PublicKeyInvalid,
    PublicKeyTaken,
    PublicKeyUnknown,
    RobotUnknown,
    SessionUnknown,
    TeamElsewhere,
    TeamNameInvalid,
    TeamNameTaken,
    TeamUnknown,
    TokenUnknown,
    TokenUnusable,
    TooManyAttempts,
    UserSettingsInvalid,
    UserUnknown,
)
from dtr.backends import BackendChanged, BackendInUse, BackendRefused, BackendUnknown
from dtr.db import DatabaseError, DatabaseFull, DatabaseRefused
from dtr.enforcement import (
    EnforcementExceptionUnknown,
    EnforcementPolicyInvalid,
    EnforcementPolicyUnknown,
    PullRefused,
)
from dtr.http.limits import TooManyRequests
from dtr.jobs import ActionConfigUnknown, CronUnknown, JobInvalid, JobOpen, JobUnknown, WorkerUnknown
from dtr.mirrors import MirroringPolicyUnknown, UpstreamUnknown
from dtr.oci import DigestInvalid, NameInvalid
from dtr.policies import PolicyUnknown, PromotionPolicyUnknown
from dtr.registry import (
    InvalidSettings,
    ManifestReferenced,
    ManifestUnknown,
    NamespaceUnknown,
    RepositoryChanged,
    RepositoryExists,
    RepositorySigned,
    RepositoryUnknown,
    TagSigned,
    TooManyPins,
    VisibilityInvalid,
)
from dtr.remotes import DefinitionInUse, DefinitionInvalid, DefinitionTaken, DefinitionUnknown
from dtr.settings import SettingsChanged, SettingsInvalid
from dtr.signatures import IdentityInvalid, IdentityUnknown
from dtr.webhooks import DeliveryUnknown, WebhookInvalid, WebhookUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CODES: dict[str, tuple[int, str]] = {
    "INVALID_JSON": (400, "The body cannot be read as the JSON that this operation takes."),
    "INVALID_PARAMETERS": (400, "The parameters cannot be read."),
    "INVALID_TAG_NAME": (400, "A tag cannot be called so."),
    "INVALID_DIGEST": (400, "The digest is not one."),
    "INVALID_REPOSITORY_NAME": (400, "The repository cannot be called so."),
    "INVALID_REPOSITORY_VISIBILITY": (400, "A repository is public or private."),
    "INVALID_SETTINGS": (400, "The settings have values that they cannot have."),
    "INVALID_USER_SETTINGS": (400, "The settings of the user have values that they cannot have."),
    "INVALID_ACCOUNT_NAME": (400, "The account cannot be called so."),
    "INVALID_TEAM_NAME": (400, "The team cannot be called so."),
    "INVALID_PASSWORD": (400, "This cannot be a password."),
    "INVALID_PUBLIC_KEY": (400, "This is no public key, or no certificate of one."),
    "NO_DIRECTORY": (400, "No directory service is configured."),
    "NOT_A_USER": (400, "Only users log in, administer and audit."),
    "PUBLIC_KEY_EXISTS": (400, "The account has this key."),
    "INVALID_TOKEN": (400, "A token cannot be made so."),
    "INVALID_TOKEN_SCOPE": (400, "A token cannot be good for that."),
    "INVALID_JOB": (400, "A job cannot be like that."),
    "INVALID_PROMOTION_POLICY": (400, "A promotion policy cannot be like that."),
    "INVALID_WEBHOOK": (400, "A webhook cannot be like that."),
    "WEBHOOK_TEST_FAILED": (400, "The receiver did not take it."),
    "INVALID_ENFORCEMENT_POLICY": (400, "What has to be signed cannot be said so."),
    "INVALID_UPSTREAM": (400, "An upstream cannot be like that."),
    "INVALID_REMOTE": (400, "A remote cannot be like that."),
    "INVALID_STORAGE": (400, "A storage cannot be like that."),
    "STORAGE_REFUSED": (400, "The storage does not work like that: nothing was changed."),
    "INVALID_SIGNING_IDENTITY": (400, "A signing identity cannot be like that."),
    "REMOTE_EXISTS": (400, "There is a remote of this name."),
    "REMOTE_REGISTRY_INVALID_PERMISSIONS": (400, "The remote registry does not let its user do that."),
    "REMOTE_REGISTRY_FAILED": (400, "The remote registry did not answer as it has to."),
    "REPOSITORY_EXISTS": (400, "There is a repository of this name."),
    "ACCOUNT_EXISTS": (400, "There is an account of this name."),
    "TEAM_EXISTS": (400, "The organization has a team of this name."),
    "NOT_GRANTABLE": (400, "This cannot be granted."),
    "NOT_AN_ORGANIZATION": (400, "It is not owned by an organization, and has no teams."),
    "TEAM_ELSEWHERE": (400, "The team does not belong to the organization."),
    "NOT_AUTHENTICATED": (401, "The client is not authenticated."),
    "NOT_AUTHORIZED": (403, "The client is not authorized."),
    "PULL_REFUSED": (403, "A policy wants a signature that is missing: this must not be pulled."),
    "INCORRECT_PASSWORD": (403, "The old password is not right."),
    "CSRF_TOKEN_INVALID": (403, "The request does not come from a page of this site, or its CSRF token is wrong."),
    "NO_SUCH_ACCOUNT": (404, "There is no such account."),
    "NO_SUCH_USER": (404, "There is no such user."),
    "NO_SUCH_TEAM": (404, "There is no such team in the organization."),
    "NO_SUCH_MEMBER": (404, "The user is not a member."),
    "NO_SUCH_REPOSITORY": (404, "There is no such repository."),
    "NO_SUCH_TAG": (404, "The repository has no such tag."),
    "NO_SUCH_REF": (404, "The repository has no such tag or digest."),
    "NO_SUCH_FILE": (404, "The manifest names no such layer, or the repository does not hold it."),
    "NO_SUCH_API_TOKEN": (404, "There is no such token."),
    "NO_SUCH_SESSION": (404, "There is no such session, or it is over."),
    "NO_SUCH_ROBOT": (404, "The organization has no such robot."),
    "NO_SUCH_PUBLIC_KEY": (404, "The account has no such key."),
    "NO_SUCH_NAMESPACE_TEAM_ACCESS": (404, "The team was granted nothing on the namespace."),
    # The status is DTR's.
    "INVALID_PUSH_MIRRORING_POLICY": (404, "A push mirroring policy cannot be like that."),
    "INVALID_POLL_MIRRORING_POLICY": (404, "A poll mirroring policy cannot be like that."),
    "INVALID_PRUNING_POLICY": (404, "A pruning policy cannot be like that."),
    "NO_SUCH_PRUNING_POLICY": (404, "The repository has no such pruning policy."),
    "NO_SUCH_PROMOTION_POLICY": (404, "The repository has no such promotion policy."),
    "NO_SUCH_SIGNATURE": (404, "Content trust has nothing of this name in the repository."),
    "NO_SUCH_ENFORCEMENT_POLICY": (404, "It wants nothing signed: there is no policy of its own."),
    "NO_SUCH_ENFORCEMENT_EXCEPTION": (404, "Its policy has no such exception."),
    "NO_SUCH_UPSTREAM": (404, "It has no upstream."),
    "NO_SUCH_MIRRORING_POLICY": (404, "The repository has no such mirroring policy."),
    "NO_SUCH_PUSH_MIRRORING_POLICY": (404, "The repository has no such push mirroring policy."),
    "NO_SUCH_POLL_MIRRORING_POLICY": (404, "The repository has no such poll mirroring policy."),
    "NO_SUCH_REMOTE": (404, "There is no such remote."),
    "NO_SUCH_SIGNING_IDENTITY": (404, "There is no such signing identity."),
    "NO_SUCH_STORAGE": (404, "There is no such storage."),
    "NO_SUCH_WEBHOOK": (404, "There is no such webhook."),
    "NO_SUCH_WEBHOOK_DELIVERY": (404, "The webhook has no such delivery."),
    "NO_SUCH_JOB": (404, "There is no such job."),
    "NO_SUCH_CRON": (404, "The action has no schedule."),
    "NO_SUCH_ACTION_CONFIG": (404, "The action has no parameters of its own."),
    "NO_SUCH_WORKER": (404, "There is no such worker."),
    "NO_SUCH_OPERATION": (404, "There is no such operation."),
    "REPOSITORY_MOVED": (308, "The repository has another name now."),
    "NOT_ALLOWED": (405, "The method is not allowed here."),
    # The status is DTR's.
    "REPOSITORY_CONTAINS_TAGS_IN_NOTARY": (
        405,
        "Tags of the repository are signed in content trust: their signatures have to be removed before.",
    ),
    "NOT_ACCEPTABLE": (406, "The answer is JSON, which the client does not accept."),
    "JOB_NOT_ENDED": (409, "The job did not end yet."),
    "LAST_ADMINISTRATOR": (409, "The last active administrator has to stay one."),
    "ACCOUNT_IN_USE": (409, "The account has repositories."),
    "REMOTE_IN_USE": (409, "Policies or caches use the remote."),
    "SETTINGS_CHANGED": (
        409,
        "Somebody else changed the settings meanwhile: they have other values than expected.",
    ),
    "STORAGE_CHANGED": (409, "Somebody else changed the storage meanwhile."),
    "STORAGE_IN_USE": (409, "What the storage has, or is there for, forbids it."),
    "READ_ONLY": (409, "The registry is read-only at present: what it holds stays as it is."),
    "TAG_IN_NOTARY": (409, "The tag is signed in content trust: its signatures have to be removed before."),
    "TAG_IMMUTABLE": (409, "The target does not let this tag be overwritten."),
    "NOT_PROMOTABLE": (409, "The image is not whole in its repository, or too much belongs to it."),
    "TOO_MANY_PINNED_REPOSITORIES": (409, "As many repositories are pinned as can be."),
    "MANIFEST_REFERENCED": (409, "Another manifest names this one."),
    "TOO_LARGE": (413, "The body is too large."),
    "UNSUPPORTED_MEDIA_TYPE": (415, "The body has to be JSON, and to say so."),
    "TOO_MANY_REQUESTS": (429, "Too many requests, or wrong log-ins; try again later."),
    "INTERNAL_ERROR": (500, "The server failed. Its administrator finds more in the log."),
    "STORAGE_UNAVAILABLE": (503, "The storage does not answer."),
    "UNAVAILABLE": (503, "The metadata database does not answer."),
    "STORAGE_FULL": (507, "The server has no room left."),
}
"""Status and message by code: DTR's, and those of what DTR had not."""


class ApiError(Exception):
    """A refusal: a code of the table, and what in this request it concerns."""

    def __init__(self, code: str, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.message = _CODES[code]
        super().__init__(self.message)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    @property
    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"errors": [{"code": self.code, "message": self.message, "detail": self.detail}]}


class Moved(ApiError):
    """The repository that a request names has another name, of which the caller may know."""

    def __init__(self, path: str, new_path: str) -> None:
        super().__init__("NO_SUCH_REPOSITORY", f"{path} is called {new_path} now")
        self.path = path
        self.new_path = new_path

    def to(self, address: str) -> ApiError:
        """For a request that only reads: to ask again at the address (path and query) with the new name."""
        path, mark, query = address.partition("?")
        before, _, behind = path.rpartition(f"/{self.path}")  # the path of an operation may look like it, too
        return ApiError(
            "REPOSITORY_MOVED", self.detail, {"Location": f"{before}/{self.new_path}{behind}{mark}{query}"}
        )


def _code(code: str) -> Callable[[Any], ApiError]:
    return lambda error: ApiError(code, str(error))


_FIELDS = {"immutable_patterns": "immutableTagPatterns"}
"""Settings of repositories that are called otherwise here."""
_ERRORS: dict[type[Exception], Callable[[Any], ApiError]] = {
    PromotionPolicyUnknown: _code("NO_SUCH_PROMOTION_POLICY"),
    PolicyUnknown: _code("NO_SUCH_PRUNING_POLICY"),
    JobInvalid: _code("INVALID_JOB"),
    JobUnknown: _code("NO_SUCH_JOB"),
    JobOpen: _code("JOB_NOT_ENDED"),
    CronUnknown: _code("NO_SUCH_CRON"),
    ActionConfigUnknown: _code("NO_SUCH_ACTION_CONFIG"),
    WorkerUnknown: _code("NO_SUCH_WORKER"),
    AccountUnknown: _code("NO_SUCH_ACCOUNT"),
    UserUnknown: _code("NO_SUCH_USER"),
    PlaceUnknown: _code("NO_SUCH_REPOSITORY"),
    RobotUnknown: _code("NO_SUCH_ROBOT"),
    UserSettingsInvalid: _code("INVALID_USER_SETTINGS"),
    TeamUnknown: _code("NO_SUCH_TEAM"),
    MemberUnknown: _code("NO_SUCH_MEMBER"),
    NameTaken: _code("ACCOUNT_EXISTS"),
    TeamNameTaken: _code("TEAM_EXISTS"),
    AccountNameInvalid: _code("INVALID_ACCOUNT_NAME"),
    TeamNameInvalid: _code("INVALID_TEAM_NAME"),
    NotAUser: _code("NOT_A_USER"),
    LastAdministrator: _code("LAST_ADMINISTRATOR"),
    PublicKeyInvalid: _code("INVALID_PUBLIC_KEY"),
    PublicKeyTaken: _code("PUBLIC_KEY_EXISTS"),
    PublicKeyUnknown: _code("NO_SUCH_PUBLIC_KEY"),
    AccountInUse: _code("ACCOUNT_IN_USE"),
    PasswordInvalid: _code("INVALID_PASSWORD"),
    NotGrantable: _code("NOT_GRANTABLE"),
    NotAnOrganization: _code("NOT_AN_ORGANIZATION"),
    TeamElsewhere: _code("TEAM_ELSEWHERE"),
    TokenUnknown: _code("NO_SUCH_API_TOKEN"),
    TokenUnusable: _code("INVALID_TOKEN"),
    BadCredentials: _code("NOT_AUTHENTICATED"),
    SessionUnknown: _code("NOT_AUTHENTICATED"),
    TooManyAttempts: lambda error: ApiError("TOO_MANY_REQUESTS", None, {"Retry-After": str(error.retry_after)}),
    TooManyRequests: lambda error: ApiError(
        "TOO_MANY_REQUESTS", str(error), {"Retry-After": str(error.retry_after)}
    ),
    EnforcementPolicyInvalid: _code("INVALID_ENFORCEMENT_POLICY"),
    EnforcementPolicyUnknown: _code("NO_SUCH_ENFORCEMENT_POLICY"),
    PullRefused: _code("PULL_REFUSED"),
    EnforcementExceptionUnknown: _code("NO_SUCH_ENFORCEMENT_EXCEPTION"),
    UpstreamUnknown: _code("NO_SUCH_UPSTREAM"),
    MirroringPolicyUnknown: _code("NO_SUCH_MIRRORING_POLICY"),
    IdentityUnknown: _code("NO_SUCH_SIGNING_IDENTITY"),
    IdentityInvalid: _code("INVALID_SIGNING_IDENTITY"),
    DefinitionUnknown: _code("NO_SUCH_REMOTE"),
    DefinitionInvalid: _code("INVALID_REMOTE"),
    DefinitionTaken: _code("REMOTE_EXISTS"),
    DefinitionInUse: _code("REMOTE_IN_USE"),
    BackendUnknown: _code("NO_SUCH_STORAGE"),
    BackendRefused: _code("STORAGE_REFUSED"),
    BackendInUse: _code("STORAGE_IN_USE"),
    BackendChanged: _code("STORAGE_CHANGED"),
    WebhookUnknown: _code("NO_SUCH_WEBHOOK"),
    WebhookInvalid: _code("INVALID_WEBHOOK"),
    DeliveryUnknown: _code("NO_SUCH_WEBHOOK_DELIVERY"),
    RepositoryUnknown: _code("NO_SUCH_REPOSITORY"),
    TooManyPins: _code("TOO_MANY_PINNED_REPOSITORIES"),
    RepositoryExists: _code("REPOSITORY_EXISTS"),
    RepositoryChanged: lambda error: ApiError(
        "SETTINGS_CHANGED",
        [{"field": _FIELDS.get(name) or to_camel(name), "value": one} for name, one in error.values.items()],
    ),
    RepositorySigned: _code("REPOSITORY_CONTAINS_TAGS_IN_NOTARY"),
    TagSigned: _code("TAG_IN_NOTARY"),
    NamespaceUnknown: _code("NO_SUCH_ACCOUNT"),
    InvalidSettings: _code("INVALID_SETTINGS"),
    VisibilityInvalid: _code("INVALID_REPOSITORY_VISIBILITY"),
    SettingsChanged: lambda error: ApiError(
        "SETTINGS_CHANGED", [{"field": name, "value": value} for name, value in error.values.items()]
    ),
    SettingsInvalid: lambda error: ApiError(
        "INVALID_SETTINGS", [{"field": name, "message": text} for name, text in error.problems.items()]
    ),
    NameInvalid: _code("INVALID_REPOSITORY_NAME"),
    DigestInvalid: _code("INVALID_DIGEST"),
    ManifestUnknown: _code("NO_SUCH_REF"),
    ManifestReferenced: _code("MANIFEST_REFERENCED"),
    DatabaseFull: _code("STORAGE_FULL"),
    DatabaseRefused: _code("INVALID_PARAMETERS"),
    DatabaseError: lambda _error: ApiError("UNAVAILABLE", None, {"Retry-After": "5"}),
}


def refusal(error: Exception) -> ApiError | None:
    """The refusal that says what a room raised; None: that is a failure of ours."""
    if isinstance(error, ApiError):
        return error
    for kind in type(error).__mro__:
        if kind in _ERRORS:
            return _ERRORS[kind](error)
    return None


EXCEPTIONS: tuple[type[Exception], ...] = (ApiError, *_ERRORS)
"""What `refusal` knows."""


class Problem(BaseModel):
    """One reason why a request was refused."""

    code: str = Field(description="A word for programs.")
    message: str = Field(description="The same for people.")
    detail: Any = Field(description="What in this request it concerns.")


class Problems(BaseModel):
    """The body of every refusal."""

    errors: list[Problem] = Field(description="The reasons; today always one.")


def errors(*codes: str) -> dict[int | str, dict[str, Any]]:
    """
    For `responses` of an operation: the codes that it refuses with, beside those of every operation.

    What every operation refuses with is in `dtr.http.api.openapi`.
    """
    by_status = defaultdict(list)
    for code in codes:
        by_status[_CODES[code][0]].append(code)
    return {status: _described(found) for status, found in by_status.items()}


def _described(codes: list[str]) -> dict[str, Any]:
    words = "\n\n".join(f"`{code}`: {_CODES[code][1]}" for code in codes)
    narrowed = {"errors": {"items": {"properties": {"code": {"enum": codes}}}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Problems"}], "properties": narrowed}
    return {"description": words, "content": {"application/json": {"schema": schema}}}
