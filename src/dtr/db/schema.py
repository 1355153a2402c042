"""
The tables, for SQLite and PostgreSQL alike. What the rows mean is the rooms' knowledge.

Conventions: names in the plural; ``*_at`` is milliseconds since 1970 UTC by the database's clock (`now`);
digests are text; JSON is text; text compares by bytes on both databases. Whatever may become garbage carries
``review_at``: NULL means that something holds it and nobody needs to look; the column is the queue.

The order in which a unit of work locks rows, in every room: used_upload_ids, uploads, tags (by name), manifests
(by digest), blobs (by digest), repository_blobs (by digest); several rows of a table in one
``SELECT … ORDER BY … FOR …``.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    event,
    false,
)

from dtr.db.texts import POSTGRESQL_TEXTS, SQLITE_TEXTS, behind_slash

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_text = Text().with_variant(Text(collation="C"), "postgresql")
# A whole number that the database counts up; SQLite does so only for a column called INTEGER.
_counted = BigInteger().with_variant(Integer(), "sqlite")
# Tables whose rows come and go with every push: vacuumed when a fiftieth of them is dead, not a fifth.
_lively = {"autovacuum_vacuum_scale_factor": 0.02}
_LEVELS = "('read-only', 'read-write', 'admin')"

# --- accounts -----------------------------------------------------------------------------------------------

accounts = Table(
    "accounts",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("name", _text, nullable=False, unique=True),
    Column("kind", _text, nullable=False),
    CheckConstraint("kind IN ('user', 'organization', 'robot')", "kind"),
    Column("organization_id", ForeignKey("accounts.id", ondelete="CASCADE"), index=True),  # of a robot
    Column("full_name", _text, nullable=False, server_default=""),
    Column("folded", _text, nullable=False, server_default=""),  # both names, to be searched whatever their case
    Column("is_admin", Boolean, nullable=False),
    Column("is_auditor", Boolean, nullable=False, server_default=false()),  # sees everything, changes nothing
    Column("is_active", Boolean, nullable=False),
    Column("is_imported", Boolean, nullable=False),
    Column("password_hash", _text),  # Argon2, in its own notation; NULL: no password opens this account
    Column("password_is_own", Boolean, nullable=False, server_default=false()),  # the user set it, nobody else
    Column("created_at", BigInteger, nullable=False),
    Column("last_login_at", BigInteger),  # by the password, to the minute
    Index(None, "full_name", "name"),
)
Index(
    "ix_accounts_administrators",
    accounts.c.name,
    sqlite_where=accounts.c.is_admin.is_(True),
    postgresql_where=accounts.c.is_admin.is_(True),
)

organization_members = Table(
    "organization_members",
    metadata,
    Column("organization_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False),
    Column("user_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("is_admin", Boolean, nullable=False),
    PrimaryKeyConstraint("organization_id", "user_id"),
)
Index(
    "ix_organization_members_owners",
    organization_members.c.organization_id,
    organization_members.c.user_id,
    sqlite_where=organization_members.c.is_admin.is_(True),
    postgresql_where=organization_members.c.is_admin.is_(True),
)

teams = Table(
    "teams",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("organization_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False),
    Column("name", _text, nullable=False),
    Column("description", _text, nullable=False, server_default=""),
    UniqueConstraint("organization_id", "name"),
)

team_members = Table(
    "team_members",
    metadata,
    Column("team_id", ForeignKey(teams.c.id, ondelete="CASCADE"), nullable=False),
    Column("user_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("is_admin", Boolean, nullable=False),
    PrimaryKeyConstraint("team_id", "user_id"),
)

tokens = Table(  # what opens an account beside its password
    "tokens",
    metadata,
    Column("id", _text, primary_key=True),  # SHA-256 of the secret, hexadecimal; the secret is not kept
    Column("account_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False),
    # The access token that a client logged in with: what is left behind has its scope, and ends with it.
    Column("parent_id", ForeignKey("tokens.id", ondelete="CASCADE"), index=True),
    Column("kind", _text, nullable=False),
    CheckConstraint("kind IN ('access', 'refresh')", "kind"),
    Column("label", _text, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger),
    Column("last_used_address", _text, nullable=False, server_default=""),
    Column("expires_at", BigInteger),
    Column("creator_user_agent", _text, nullable=False, server_default=""),
    Column("scope", _text),  # JSON, what it is good for; NULL: everything that the account may
    Index(None, "account_id", "id"),
)
Index(  # those that come to their end
    "ix_tokens_expires_at",
    tokens.c.expires_at,
    sqlite_where=tokens.c.expires_at.is_not(None),
    postgresql_where=tokens.c.expires_at.is_not(None),
)
Index(  # those that were switched off
    "ix_tokens_inactive",
    tokens.c.created_at,
    sqlite_where=tokens.c.is_active.is_(False),
    postgresql_where=tokens.c.is_active.is_(False),
)

sessions = Table(  # of browsers, and of scripts that logged in
    "sessions",
    metadata,
    Column("id", _text, primary_key=True),  # SHA-256 of the secret, hexadecimal; the secret is not kept
    Column("account_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("address", _text, nullable=False, server_default=""),
    Column("user_agent", _text, nullable=False, server_default=""),
)

public_keys = Table(  # of users, for content trust
    "public_keys",
    metadata,
    Column("account_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False),
    Column("id", _text, nullable=False),  # SHA-256 of the key's DER, hexadecimal
    Column("public_key", _text, nullable=False),  # PEM
    Column("label", _text, nullable=False, server_default=""),
    Column("certificates", _text, nullable=False, server_default="[]"),  # JSON: label and PEM of each
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("account_id", "id"),
    Index(None, "id", "account_id"),
)

user_settings = Table(
    "user_settings",
    metadata,
    Column("account_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), primary_key=True),
    Column("language", _text),  # NULL: what the browser asks for
    Column("content_cache", _text),  # uuid
)

signing_keys = Table(  # of the token service
    "signing_keys",
    metadata,
    Column("id", _text, primary_key=True),  # RFC 7638 thumbprint, the `kid`
    Column("private_key", _text, nullable=False),  # JWK
    Column("created_at", BigInteger, nullable=False),
    Column("signs_from", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),  # when nothing signed with it is accepted any more
)

signer_keys = Table(  # of the signer: private keys of timestamps and snapshots
    "signer_keys",
    metadata,
    Column("key_id", _text, primary_key=True),  # SHA-256 of the public key object, in hexadecimal digits
    Column("gun", _text, nullable=False),
    Column("role", _text, nullable=False),
    Column("algorithm", _text, nullable=False),
    Column("public", LargeBinary, nullable=False),  # SubjectPublicKeyInfo in DER, or 32 bytes (Ed25519)
    Column("private", _text, nullable=False),  # compact JWE
    Column("alias", _text, nullable=False, index=True),  # which passphrase opens it
    Column("created_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger),  # NULL: a pending key
)
Index(  # one pending key
    "uq_signer_keys_pending",
    signer_keys.c.gun,
    signer_keys.c.role,
    signer_keys.c.algorithm,
    unique=True,
    sqlite_where=signer_keys.c.last_used_at.is_(None),
    postgresql_where=signer_keys.c.last_used_at.is_(None),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("subject", _text, primary_key=True),  # what is slowed down, hashed
    Column("failures", Integer, nullable=False),
    Column("blocked_until", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

# --- repositories -------------------------------------------------------------------------------------------

repositories = Table(
    "repositories",
    metadata,
    Column("id", _counted, Identity(), primary_key=True),
    # The account that owns it. NULL when that has gone: only a deleted repository outlives its owner, until its
    # content is collected.
    Column("namespace_id", ForeignKey(accounts.c.id, ondelete="SET NULL"), index=True),
    CheckConstraint("namespace_id IS NOT NULL OR deleted_at IS NOT NULL", "owned"),
    Column("path", _text, nullable=False),  # namespace/name[/...]
    Column("name", _text, Computed(behind_slash("path"), persisted=True), nullable=False),  # without namespace
    Column("visibility", _text, nullable=False),
    CheckConstraint("visibility IN ('public', 'private')", "visibility"),
    Column("short_description", _text, nullable=False, server_default=""),
    Column("long_description", _text, nullable=False, server_default=""),
    Column("folded", _text, nullable=False, server_default=""),  # the short one, to be searched whatever its case
    Column("scan_on_push", Boolean, nullable=False),
    Column("immutable_tags", Boolean, nullable=False),
    Column("immutable_patterns", _text, nullable=False, server_default="[]"),  # JSON: those tags alone
    Column("tag_limit", Integer, nullable=False),  # 0: none
    Column("has_policies", Boolean, nullable=False, server_default=false()),  # a push has to be told to them
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),  # its name is free from then on, its content goes later
    sqlite_autoincrement=True,  # no id is given twice: what happened to the one did not to the other
)
Index(
    "uq_repositories_path",
    repositories.c.path,
    unique=True,
    sqlite_where=repositories.c.deleted_at.is_(None),
    postgresql_where=repositories.c.deleted_at.is_(None),
)
Index(
    "ix_repositories_deleted_at",
    repositories.c.deleted_at,
    sqlite_where=repositories.c.deleted_at.is_not(None),
    postgresql_where=repositories.c.deleted_at.is_not(None),
)
# Lists are put together from pieces of one visibility each.
for _listed in (
    (repositories.c.visibility,),  # to count
    (repositories.c.visibility, repositories.c.path),
    (repositories.c.visibility, repositories.c.name, repositories.c.path),
    (repositories.c.namespace_id, repositories.c.visibility, repositories.c.path, repositories.c.name),
):
    Index(
        f"ix_repositories_{'_'.join(column.name for column in _listed)}",
        *_listed,
        repositories.c.deleted_at,  # or SQLite looks into the row for it
        sqlite_where=repositories.c.deleted_at.is_(None),
        postgresql_where=repositories.c.deleted_at.is_(None),
        postgresql_include=["id"] if len(_listed) > 1 else None,  # SQLite's indexes have it
    )

# Parts of words are looked for by three letters each (`dtr.db.texts`). SQLite has a table for that, whose rows
# carry the number of the repository, negative for a public one: so those stand together. PostgreSQL has indexes.
for _dialect, _commands in (("sqlite", SQLITE_TEXTS), ("postgresql", (POSTGRESQL_TEXTS,))):
    for _command in _commands:
        _ddl = DDL(_command)  # type: ignore[no-untyped-call]  # SQLAlchemy types its DDL in part
        event.listen(metadata, "after_create", _ddl.execute_if(dialect=_dialect))

repository_grants = Table(
    "repository_grants",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False),
    Column("team_id", ForeignKey(teams.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("level", _text, nullable=False),
    CheckConstraint(f"level IN {_LEVELS}", "level"),
    PrimaryKeyConstraint("repository_id", "team_id"),
)

namespace_grants = Table(
    "namespace_grants",
    metadata,
    Column("namespace_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False),
    Column("team_id", ForeignKey(teams.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("level", _text, nullable=False),
    CheckConstraint(f"level IN {_LEVELS}", "level"),
    PrimaryKeyConstraint("namespace_id", "team_id"),
)

repository_user_grants = Table(
    "repository_user_grants",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False),
    Column("user_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("level", _text, nullable=False),
    CheckConstraint(f"level IN {_LEVELS}", "level"),
    PrimaryKeyConstraint("repository_id", "user_id"),
)

namespace_user_grants = Table(
    "namespace_user_grants",
    metadata,
    Column("namespace_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False),
    Column("user_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("level", _text, nullable=False),
    CheckConstraint(f"level IN {_LEVELS}", "level"),
    PrimaryKeyConstraint("namespace_id", "user_id"),
)

repository_redirects = Table(  # a name that a repository had; gone when another one takes it
    "repository_redirects",
    metadata,
    Column("path", _text, primary_key=True),
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
)

repository_summaries = (
    Table(  # what lists of repositories are filtered and sorted by: narrow rows, read all at once
        "repository_summaries",
        metadata,
        Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), primary_key=True),
        Column("namespace_id", _text, nullable=False),  # as the repository has them, changed together with it
        Column("visibility", _text, nullable=False),
        Column("path", _text, nullable=False),
        # What follows is some seconds late.
        Column(
            "latest_tag", _text, nullable=False, server_default=""
        ),  # that was moved last; empty: there is none
        Column("kind", _text, nullable=False, server_default=""),  # of what it names
        Column("is_signed", Boolean, nullable=False, server_default=false()),  # what it names
        Column("bytes", BigInteger, nullable=False, server_default="0"),
        Column("pulls", BigInteger, nullable=False, server_default="0"),
        Column("pushed_at", BigInteger, nullable=False, server_default="0"),  # 0: never
        Index(None, "namespace_id", "visibility", "repository_id"),  # to count those of each
        postgresql_with=_lively,
    )
)
Index(  # those that were pushed to last, and who sees them
    "ix_repository_summaries_pushed_at",
    repository_summaries.c.pushed_at.desc(),
    repository_summaries.c.path,
    repository_summaries.c.visibility,
    repository_summaries.c.namespace_id,
    postgresql_include=["repository_id"],  # SQLite's index has it
)

pinned_repositories = Table(  # those that users want to find at once
    "pinned_repositories",
    metadata,
    Column("account_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), nullable=False),
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("account_id", "repository_id"),
)

# --- content ------------------------------------------------------------------------------------------------

blobs = Table(  # a row lives exactly as long as it has a link
    "blobs",
    metadata,
    Column("digest", _text, primary_key=True),
    Column("size", BigInteger, nullable=False),  # bytes
    Column("location", _text, unique=True),  # NULL: its bytes are in `blob_contents`
    Column("state", _text, nullable=False),
    CheckConstraint("state IN ('present', 'missing')", "state"),
    Column("created_at", BigInteger, nullable=False),
    postgresql_with=_lively,
)

blob_contents = Table(  # small blobs: a row is the cheapest thing that can be made durable
    "blob_contents",
    metadata,
    Column("digest", ForeignKey(blobs.c.digest, ondelete="CASCADE"), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

repository_blobs = Table(  # the links: access to a blob is decided here, never by its digest alone
    "repository_blobs",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id), nullable=False),
    Column("digest", ForeignKey(blobs.c.digest), nullable=False, index=True),
    Column("review_at", BigInteger),
    PrimaryKeyConstraint("repository_id", "digest"),
    sqlite_with_rowid=False,
    postgresql_with=_lively,
)

manifests = Table(
    "manifests",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id), nullable=False),
    Column("digest", _text, nullable=False),
    Column("media_type", _text, nullable=False),
    Column("artifact_type", _text),
    Column("subject", _text),  # digest; it may be missing, and holds this manifest
    Column("config_digest", _text),
    Column("config_media_type", _text),
    Column("annotations", _text),  # JSON, for lists: the shortest; NULL: none
    Column("content_size", BigInteger, nullable=False),  # bytes of config and layers, or of the children
    Column("platforms", Integer, nullable=False, server_default="0"),  # of an index: its images for a known system
    Column("payload", LargeBinary, nullable=False),  # exactly what was pushed
    Column("author", _text, nullable=False),  # account name of who pushed it; empty: anonymous
    Column("created_at", BigInteger, nullable=False),
    Column("review_at", BigInteger),
    PrimaryKeyConstraint("repository_id", "digest"),
    Index(None, "digest", "repository_id"),  # which repositories have it
    postgresql_with=_lively,
)
Index(  # pages of referrers
    "ix_manifests_subject",
    manifests.c.repository_id,
    manifests.c.subject,
    manifests.c.digest,
    sqlite_where=manifests.c.subject.is_not(None),
    postgresql_where=manifests.c.subject.is_not(None),
)
# Those of one type; for all of them a planner must not take it, for they are not in order here.
_has_subject_and_type = manifests.c.subject.is_not(None) & manifests.c.artifact_type.is_not(None)
Index(
    "ix_manifests_subject_artifact_type",
    manifests.c.repository_id,
    manifests.c.subject,
    manifests.c.artifact_type,
    manifests.c.digest,
    sqlite_where=_has_subject_and_type,
    postgresql_where=_has_subject_and_type,
)

manifest_references = Table(  # immutable; the target may be missing (sparse indexes, pull caches)
    "manifest_references",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("manifest", _text, nullable=False),
    Column("kind", _text, nullable=False),
    CheckConstraint("kind IN ('blob', 'manifest')", "kind"),
    Column("target", _text, nullable=False),
    PrimaryKeyConstraint("repository_id", "manifest", "kind", "target"),
    ForeignKeyConstraint(
        ["repository_id", "manifest"], [manifests.c.repository_id, manifests.c.digest], ondelete="CASCADE"
    ),
    Index(None, "repository_id", "kind", "target"),
    sqlite_with_rowid=False,
    postgresql_with=_lively,
)

tags = Table(
    "tags",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("name", _text, nullable=False),
    Column("manifest", _text, nullable=False),  # digest
    Column("author", _text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("version_key", _text, nullable=False, server_default=""),  # the name, as versions are ordered
    PrimaryKeyConstraint("repository_id", "name"),
    ForeignKeyConstraint(
        ["repository_id", "manifest"],
        [manifests.c.repository_id, manifests.c.digest],
        deferrable=True,
        initially="DEFERRED",
    ),
    # Other names of an image. With the name PostgreSQL would find names by it, too, among all of a repository.
    Index(None, "repository_id", "manifest", "version_key"),
    Index(None, "repository_id", "created_at", "name"),  # first in, first out of a tag limit
    Index(None, "repository_id", "updated_at", "name"),  # lists in these orders
    Index(None, "repository_id", "version_key", "name"),
    sqlite_with_rowid=False,
    postgresql_with=_lively,
)

tag_origins = Table(  # where tags were promoted from
    "tag_origins",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("name", _text, nullable=False),
    # What the tag was made to name, and when: if that is no longer so, it was moved, and comes from elsewhere.
    Column("manifest", _text, nullable=False),
    Column("moved_at", BigInteger, nullable=False),
    Column("source_repository", _text, nullable=False),  # what it was called
    Column("source_tag", _text, nullable=False),
    Column("policy_id", _text, nullable=False),  # empty: by hand
    PrimaryKeyConstraint("repository_id", "name"),
    ForeignKeyConstraint(["repository_id", "name"], [tags.c.repository_id, tags.c.name], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", _text, primary_key=True),
    Column("repository_id", ForeignKey(repositories.c.id), nullable=False, index=True),
    Column("location", _text, nullable=False, unique=True),
    Column("driver_state", _text, nullable=False),  # JSON, the storage driver's own
    Column("offset", BigInteger, nullable=False),  # bytes received
    Column("algorithm", _text, nullable=False),
    Column("digest", _text),  # of the bytes received so far; NULL: not known
    Column("writer", _text, nullable=False, server_default=""),  # whose request may write
    Column("writer_until", BigInteger, nullable=False, server_default="0"),
    Column("started_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    postgresql_with=_lively,
)

used_upload_ids = Table(  # of uploads that were announced without a row, and then begun, ended or given up
    "used_upload_ids",
    metadata,
    Column("id", _text, primary_key=True),
    sqlite_with_rowid=False,
    postgresql_with=_lively,
)

shared_keys = Table(  # by chance; made by the process that needs one first
    "shared_keys",
    metadata,
    Column("name", _text, primary_key=True),
    Column("key", _text, nullable=False),  # hexadecimal
)

fetches = Table(  # uploads of blobs that come from another registry: who fetches one again goes on with it
    "fetches",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("digest", _text, nullable=False),  # of the whole blob
    Column("upload_id", ForeignKey(uploads.c.id, ondelete="CASCADE"), nullable=False, index=True),
    PrimaryKeyConstraint("repository_id", "digest"),
    sqlite_with_rowid=False,
)

gc_objects = Table(  # tombstones: objects to be deleted at the store
    "gc_objects",
    metadata,
    Column("location", _text, primary_key=True),
    Column("driver_state", _text),  # of an unfinished upload, to be aborted; NULL: a whole object
    Column("size", BigInteger, nullable=False),
    Column("delete_after", BigInteger, nullable=False, index=True),
    Column("repeat_after", BigInteger),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", _text),
    Column("damage", _text),  # why it is in quarantine: which blob it was, and what is wrong; NULL: it is not
    postgresql_with=_lively,
)
_fails = gc_objects.c.attempts >= 10
Index("ix_gc_objects_attempts", gc_objects.c.attempts, sqlite_where=_fails, postgresql_where=_fails)

audit_positions = Table(  # how far the reading of all blobs came that goes on next time
    "audit_positions",
    metadata,
    Column("name", _text, primary_key=True),
    Column("location", _text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

usage_deltas = Table(  # append only, folded from time to time into `usage`
    "usage_deltas",
    metadata,
    Column("id", _counted, Identity(), primary_key=True),
    Column("scope", _text, nullable=False, index=True),  # `*`, `namespace:ID` or `repository:ID`
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("pulls", BigInteger, nullable=False, server_default="0"),
    Column("pushes", BigInteger, nullable=False, server_default="0"),
    Column("pulled_at", BigInteger),  # the last of its pulls
    Column("pushed_at", BigInteger),
    postgresql_with=_lively,
)

usage = Table(
    "usage",
    metadata,
    Column("scope", _text, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("pulls", BigInteger, nullable=False, server_default="0"),
    Column("pushes", BigInteger, nullable=False, server_default="0"),
    Column("pulled_at", BigInteger),
    Column("pushed_at", BigInteger),
)

usage_days = Table(  # what came to `usage` in a day
    "usage_days",
    metadata,
    Column("scope", _text, nullable=False),
    Column("day", BigInteger, nullable=False, index=True),  # days since 1970 UTC
    Column("bytes", BigInteger, nullable=False),  # gained, or lost
    Column("pulls", BigInteger, nullable=False),
    Column("pushes", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "day"),
)

pulls = Table(  # by tag and by digest, as they were asked for; written in batches
    "pulls",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False),
    Column("reference", _text, nullable=False),
    Column("pulls", BigInteger, nullable=False),
    Column("last_pulled_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "reference"),
    sqlite_with_rowid=False,
    postgresql_with=_lively,
)

image_configs = Table(  # what the configs of images say, read once
    "image_configs",
    metadata,
    Column("digest", ForeignKey(blobs.c.digest, ondelete="CASCADE"), primary_key=True),
    Column("os", _text, nullable=False),
    Column("os_version", _text, nullable=False),
    Column("architecture", _text, nullable=False),
    Column("variant", _text, nullable=False),
    Column("history", _text, nullable=False),  # JSON: of each step the command, and whether it made no layer
    Column("labels", _text, nullable=False),  # JSON
    Column("runtime", _text, nullable=False, server_default="{}"),  # JSON: how its containers run
)

# --- the whole installation -----------------------------------------------------------------------------------

events = Table(  # what happened; written in the transaction of what it tells
    "events",
    metadata,
    Column("id", _counted, Identity(), primary_key=True),
    Column("published_at", BigInteger, nullable=False, index=True),
    Column("type", _text, nullable=False),
    Column("actor", _text, nullable=False),  # id of an account or policy; empty: anonymous, or the program
    Column("actor_name", _text, nullable=False),
    Column("actor_type", _text, nullable=False),
    Column("address", _text, nullable=False),  # of the client; empty: unknown
    Column("repository_id", BigInteger),  # NULL: not about a repository; it may be gone
    Column("repository", _text, nullable=False),  # its path then
    Column("object_type", _text, nullable=False),
    Column("object_id", _text, nullable=False),
    Column("object_name", _text, nullable=False),
    Column("object_content", _text, nullable=False),
    Column("target_type", _text),
    Column("target_id", _text),
    Column("target_name", _text),
    Column("target_content", _text),
    Column("times", BigInteger, nullable=False, server_default="1"),  # so often within about a second
)
# Pulls are most of the events, and lists without them must not walk over them: each event is in the index of the
# one or of the other.
_pull, _no_pull = events.c.type == "GET", events.c.type != "GET"
for _name, _columns, _kind in (
    ("id", (events.c.id,), _no_pull),
    ("object_type_type_id", (events.c.object_type, events.c.type, events.c.id), _no_pull),
    ("repository_id_id", (events.c.repository_id, events.c.id), _no_pull),
    ("repository_id_id_pulls", (events.c.repository_id, events.c.id), _pull),
    ("actor_id", (events.c.actor, events.c.id), _no_pull),
    ("actor_id_pulls", (events.c.actor, events.c.id), _pull),
    ("address_id", (events.c.address, events.c.id), _no_pull),
    ("address_id_pulls", (events.c.address, events.c.id), _pull),
):
    Index(f"ix_events_{_name}", *_columns, sqlite_where=_kind, postgresql_where=_kind)
_of_tag = (events.c.object_type == "tag") & _no_pull
Index(  # what a tag named
    "ix_events_tag",
    events.c.repository_id,
    events.c.object_name,
    events.c.id,
    sqlite_where=_of_tag,
    postgresql_where=_of_tag,
)

event_cursors = Table(  # how far those came who follow the events
    "event_cursors",
    metadata,
    Column("name", _text, primary_key=True),
    Column("position", BigInteger, nullable=False),  # id of the last event that they are done with
    Column("holder", _text, nullable=False),  # the process that follows now
    Column("held_until", BigInteger, nullable=False),
)

settings = Table(  # those that change while the program runs
    "settings",
    metadata,
    Column("name", _text, primary_key=True),
    Column("value", _text, nullable=False),  # JSON
    Column("updated_at", BigInteger, nullable=False),
)

revisions = Table(  # counted up by whoever changes what others keep in memory
    "revisions",
    metadata,
    Column("name", _text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

pruning_policies = Table(
    "pruning_policies",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("enabled", Boolean, nullable=False),
    Column("rules", _text, nullable=False),  # JSON
    Column("keep", Integer, nullable=False),  # so many of the newest tags that the rules mean stay
    Column("since", BigInteger, nullable=False),  # older tags are not meant; 0: all are
    Column("created_at", BigInteger, nullable=False),
    Column("last_pruned_at", BigInteger),
    # What the last work came to: numbers of tags, and the job that did it.
    Column("waiting", Integer, nullable=False, server_default="0"),  # for a scan
    Column("deleted", Integer, nullable=False, server_default="0"),
    Column("newest", Integer, nullable=False, server_default="0"),  # stayed as the newest
    Column("signed", Integer, nullable=False, server_default="0"),  # stayed, for they are signed
    Column("protected", Integer, nullable=False, server_default="0"),  # stayed, for they are immutable
    Column("last_job", _text, nullable=False, server_default=""),
)

promotion_policies = Table(
    "promotion_policies",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("source_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("target_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("enabled", Boolean, nullable=False),
    Column("rules", _text, nullable=False),  # JSON
    Column("tag_template", _text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_promoted_at", BigInteger),
    Column("last_failed_at", BigInteger),
    Column("last_failure", _text, nullable=False, server_default=""),  # of which tag, and why
    Column("last_job", _text, nullable=False, server_default=""),  # the one that promoted or failed last
)

policy_tags = Table(  # what a policy last had to do with a tag, so that it does it once for each push
    "policy_tags",
    metadata,
    Column("policy_id", _text, primary_key=True),
    Column("tag", _text, primary_key=True),
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False),  # of the tag
    Column("digest", _text, nullable=False),  # what it named
    Column("moment", BigInteger, nullable=False),  # of the push
    Column("chain", _text, nullable=False),  # JSON: what the image came through by promotion
    Column("state", _text, nullable=False),
    CheckConstraint("state IN ('done', 'waits')", "state"),
    Column("waits_for", _text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_policy_tags_repository_id_digest", "repository_id", "digest"),
)
Index(
    "ix_policy_tags_waiting",
    policy_tags.c.policy_id,
    policy_tags.c.tag,
    sqlite_where=policy_tags.c.state == "waits",
    postgresql_where=policy_tags.c.state == "waits",
)

storages = Table(  # where blobs are; `blobs.location` and the like begin with a name
    "storages",
    metadata,
    Column("name", _text, primary_key=True),
    Column("driver", _text, nullable=False),
    Column("parameters", _text),  # JSON, without secrets; NULL: the settings file describes it
    Column("secrets", _text),  # JSON, sealed
    Column("place", _text, nullable=False),  # where its objects are: what no change may change unseen
    Column("redirect_seconds", Integer),  # NULL: nobody is sent there
    Column("redirect_except", _text, nullable=False),  # JSON: networks of clients
    Column("is_default", Boolean, nullable=False),
    Column("used_until", BigInteger, nullable=False),  # when new blobs last had to go there; 0: never
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    CheckConstraint("secrets IS NULL OR parameters IS NOT NULL", "described"),
)

namespace_storages = Table(  # where the new blobs of namespaces go, when it is not the default storage
    "namespace_storages",
    metadata,
    Column("namespace_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), primary_key=True),
    Column("storage", ForeignKey(storages.c.name), nullable=False, index=True),
)

remotes = Table(  # other registries, and as whom they are asked
    "remotes",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("name", _text),  # NULL: it belongs to a single policy
    # That policy's repository, with which it goes.
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), index=True),
    CheckConstraint("(name IS NULL) = (repository_id IS NOT NULL)", "single"),
    # Whose policies may use it; with NULL and a name, those of the whole registry.
    Column("namespace_id", ForeignKey(accounts.c.id, ondelete="CASCADE")),
    CheckConstraint("namespace_id IS NULL OR name IS NOT NULL", "shared"),
    Column("host", _text, nullable=False),
    Column("username", _text, nullable=False),
    Column("password", _text),  # sealed
    Column("token", _text),  # sealed
    Column("ca", _text, nullable=False),  # PEM; empty: the authorities of the system
    Column("skip_tls_verification", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("namespace_id", "name"),
)
Index(
    "uq_remotes_name",
    remotes.c.name,
    unique=True,
    sqlite_where=remotes.c.namespace_id.is_(None),
    postgresql_where=remotes.c.namespace_id.is_(None),
)

signing_identities = Table(  # whose signatures count
    "signing_identities",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    # Whose repositories it is for; NULL: all.
    Column("namespace_id", ForeignKey(accounts.c.id, ondelete="CASCADE")),
    Column("name", _text, nullable=False),
    Column("kind", _text, nullable=False),
    CheckConstraint("kind IN ('key', 'certificate', 'keyless')", "kind"),
    Column("content", _text, nullable=False),  # PEM, or of a keyless one the issuer of its tokens
    Column("subject", _text, nullable=False),  # whom the certificate has to be of; empty: anybody
    Column("fingerprint", _text, nullable=False),  # SHA-256 of the key or the first certificate; empty: keyless
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("namespace_id", "name"),
)
Index(
    "uq_signing_identities_name",
    signing_identities.c.name,
    unique=True,
    sqlite_where=signing_identities.c.namespace_id.is_(None),
    postgresql_where=signing_identities.c.namespace_id.is_(None),
)

signatures = Table(  # what the signatures in manifests say, read once
    "signatures",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("subject", _text, nullable=False),  # digest of what was signed
    Column("manifest", _text, nullable=False),  # digest of the manifest with the signature
    Column("number", Integer, nullable=False),  # of the layer in it
    Column("tag", _text),  # it counts as long as this tag names the manifest; NULL: it is a referrer
    Column("kind", _text, nullable=False),
    CheckConstraint("kind IN ('signature', 'attestation')", "kind"),
    Column("format", _text, nullable=False),
    Column("predicate_type", _text, nullable=False),  # of an attestation
    Column("signer", _text, nullable=False),  # who it says it is of; nobody has checked that
    Column("signed_at", BigInteger),  # when it says it was made
    Column("problem", _text, nullable=False),  # why it cannot count for anybody; empty: it can
    Column("objection", _text, nullable=False),  # why it does not for whom it seems to be of
    Column("checked_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "subject", "manifest", "number"),
    ForeignKeyConstraint(
        ["repository_id", "manifest"], [manifests.c.repository_id, manifests.c.digest], ondelete="CASCADE"
    ),
    Index(None, "repository_id", "manifest"),
    sqlite_with_rowid=False,
)

signature_proofs = Table(  # signatures that are those of an identity
    "signature_proofs",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("subject", _text, nullable=False),
    Column("manifest", _text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("identity_id", ForeignKey(signing_identities.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("valid_until", BigInteger),  # NULL: for ever
    PrimaryKeyConstraint("repository_id", "subject", "manifest", "number", "identity_id"),
    ForeignKeyConstraint(
        ["repository_id", "subject", "manifest", "number"],
        [signatures.c.repository_id, signatures.c.subject, signatures.c.manifest, signatures.c.number],
        ondelete="CASCADE",
    ),
    sqlite_with_rowid=False,
)

enforcement_policies = Table(  # what has to be signed to be pulled
    "enforcement_policies",
    metadata,
    Column("scope", _text, primary_key=True),  # "repository:ID", "namespace:ID" or "registry"
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), index=True),
    Column("namespace_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), index=True),
    CheckConstraint("repository_id IS NULL OR namespace_id IS NULL", "scope"),
    Column("mode", _text, nullable=False),
    CheckConstraint("mode IN ('off', 'report', 'enforce')", "mode"),
    Column("signers", _text, nullable=False),  # JSON
    Column("teams", _text, nullable=False),  # JSON: ids, of teams that may be gone
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

enforcement_exceptions = Table(
    "enforcement_exceptions",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("scope", ForeignKey(enforcement_policies.c.scope, ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", _text, nullable=False),
    CheckConstraint("kind IN ('tag', 'digest', 'account')", "kind"),
    Column("value", _text, nullable=False),  # a pattern of tags, a digest, or the id of an account
    Column("reason", _text, nullable=False),
    Column("author", _text, nullable=False),  # name of the account
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),  # NULL: it does not end
)

upstreams = Table(  # what repositories are caches of
    "upstreams",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    # Of one repository, or of all that come to be in a namespace.
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), unique=True),
    Column("namespace_id", ForeignKey(accounts.c.id, ondelete="CASCADE"), unique=True),
    CheckConstraint("(repository_id IS NULL) <> (namespace_id IS NULL)", "scope"),
    Column("remote_id", ForeignKey(remotes.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("remote_path", _text, nullable=False),  # a repository there, or what stands before the names of some
    Column("tag_patterns", _text, nullable=False),  # JSON; those tags alone
    Column("visibility", _text, nullable=False),  # of the repositories that come to be
    CheckConstraint("visibility IN ('public', 'private')", "visibility"),
    Column("max_age", BigInteger, nullable=False),  # milliseconds
    Column("keep_for", BigInteger),  # milliseconds; NULL: for ever
    Column("created_at", BigInteger, nullable=False),
)

cached_repositories = Table(
    "cached_repositories",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), primary_key=True),
    # Where it is filled from. NULL: it was a cache, and may lack some of what its manifests name.
    Column("upstream_id", ForeignKey(upstreams.c.id, ondelete="SET NULL"), index=True),
    Column("remote_path", _text, nullable=False),  # the repository there
)

cached_tags = Table(
    "cached_tags",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("name", _text, nullable=False),
    Column("checked_at", BigInteger, nullable=False),  # when it was known to be what it is at the upstream
    PrimaryKeyConstraint("repository_id", "name"),
    ForeignKeyConstraint(["repository_id", "name"], [tags.c.repository_id, tags.c.name], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

mirroring_policies = Table(
    "mirroring_policies",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("direction", _text, nullable=False),
    CheckConstraint("direction IN ('push', 'poll')", "direction"),
    Column("remote_id", ForeignKey(remotes.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("remote_repository", _text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("rules", _text, nullable=False),  # JSON
    Column("tag_template", _text, nullable=False),
    Column("with_referrers", Boolean, nullable=False),
    Column("with_deletions", Boolean, nullable=False),
    Column("schedule", _text, nullable=False),  # empty: with all others
    Column("next_run", BigInteger),  # by its own schedule
    Column("skips_present", Boolean, nullable=False),  # what the first poll finds is only noted
    Column("created_at", BigInteger, nullable=False),
    Column("last_mirrored_at", BigInteger),
    Column("status_code", _text, nullable=False, server_default=""),  # how its last work ended
    Column("status_detail", _text, nullable=False, server_default=""),
    Column("status_at", BigInteger),
    Column("last_job", _text, nullable=False, server_default=""),
)
Index(
    "ix_mirroring_policies_next_run",
    mirroring_policies.c.next_run,
    sqlite_where=mirroring_policies.c.next_run.is_not(None),
    postgresql_where=mirroring_policies.c.next_run.is_not(None),
)

mirrored_tags = Table(  # what became of tags by mirroring
    "mirrored_tags",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False),
    Column("policy_id", _text, nullable=False),  # empty: by hand
    Column("tag", _text, nullable=False),  # at the source: here for a push, there for a poll
    Column("direction", _text, nullable=False),
    Column("target_tag", _text, nullable=False),
    Column("remote", _text, nullable=False),  # the repository there, with its registry
    Column("digest", _text, nullable=False),  # what the tag named when it was tried last
    Column("status", _text, nullable=False),
    CheckConstraint("status IN ('mirrored', 'failed', 'waiting', 'skipped')", "status"),
    Column("detail", _text, nullable=False),
    Column("attempted_at", BigInteger, nullable=False),
    Column("mirrored_at", BigInteger),
    PrimaryKeyConstraint("repository_id", "policy_id", "tag"),
    Index(None, "repository_id", "tag"),
    Index(None, "repository_id", "target_tag"),
    Index(None, "repository_id", "digest"),
    sqlite_with_rowid=False,
)

webhooks = Table(  # subscriptions to what happens
    "webhooks",
    metadata,
    Column("id", _text, primary_key=True),  # 64 hexadecimal digits
    Column("type", _text, nullable=False),
    # Where it has to happen: in one repository, in a namespace, or, with neither, anywhere. The repository may be
    # gone: its last events are told still.
    Column("repository_id", BigInteger, index=True),
    Column("namespace_id", ForeignKey("accounts.id", ondelete="CASCADE"), index=True),
    CheckConstraint("repository_id IS NULL OR namespace_id IS NULL", "scope"),
    Column("author_id", _text, nullable=False, index=True),  # of an account, which may be gone
    Column("name", _text, nullable=False),
    Column("endpoint", _text, nullable=False),
    Column("format", _text, nullable=False),
    CheckConstraint("format IN ('dtr', 'cloudevents')", "format"),
    Column("tls_cert", _text, nullable=False),  # PEM; empty: the authorities of the system
    Column("skip_tls_verification", Boolean, nullable=False),
    Column("secret", _text),  # sealed
    Column("is_active", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),  # with its repository: what is under way is delivered still
    Column("last_successful_at", BigInteger),
    Column("failing_since", BigInteger),  # NULL: the last delivery was taken
    Column("last_error", _text, nullable=False, server_default=""),
)
Index(
    "ix_webhooks_type_active",
    webhooks.c.type,
    sqlite_where=webhooks.c.is_active.is_(True),
    postgresql_where=webhooks.c.is_active.is_(True),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("webhook_id", ForeignKey(webhooks.c.id, ondelete="CASCADE"), nullable=False),
    Column("event_id", BigInteger),  # which is told; NULL: told once more
    UniqueConstraint("webhook_id", "event_id"),
    Column("repeats", _text, nullable=False, server_default=""),  # id of the delivery that is told once more
    Column("body", _text, nullable=False),  # what is sent: JSON
    Column("created_at", BigInteger, nullable=False),
    Column("status", _text, nullable=False),
    CheckConstraint("status IN ('waiting', 'delivered', 'failed')", "status"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("attempted_at", BigInteger),
    Column("status_code", Integer),  # of the last answer; NULL: there was none
    Column("answer", _text, nullable=False, server_default=""),  # how it begins
    Column("error", _text, nullable=False, server_default=""),
    Column("duration", Integer),  # milliseconds that the last attempt took
    Index("ix_webhook_deliveries_webhook_id_created_at", "webhook_id", "created_at", "id"),
    Index("ix_webhook_deliveries_created_at", "created_at"),
)

# --- content trust ------------------------------------------------------------------------------------------

# A collection is a repository under a name of the server, its GUN: a repository that takes a name which another
# one had finds nothing of that one's.

trust_files = Table(  # every version of the signed files of a collection
    "trust_files",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False),
    Column("gun", _text, nullable=False),
    Column("role", _text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sha256", _text, nullable=False),  # of the content, hexadecimal
    Column("content", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "gun", "role", "version"),
    Index(None, "repository_id", "gun", "sha256"),
)

trust_roles = Table(  # the current file of each role: what the timestamp leads to
    "trust_roles",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("gun", _text, nullable=False),
    Column("role", _text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "gun", "role"),
    ForeignKeyConstraint(
        ["repository_id", "gun", "role", "version"],
        [trust_files.c.repository_id, trust_files.c.gun, trust_files.c.role, trust_files.c.version],
        name="fk_trust_roles_version_trust_files",
        ondelete="CASCADE",
    ),
    sqlite_with_rowid=False,
)

trust_targets = Table(  # what the current files sign, as a client finds it
    "trust_targets",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("name", _text, nullable=False),  # of a tag
    Column("gun", _text, nullable=False),
    Column("role", _text, nullable=False),
    Column("digest", _text, nullable=False),  # of the manifest
    Column("length", BigInteger, nullable=False),  # bytes of it
    Column("signed_at", BigInteger, nullable=False),  # when the role began to sign this digest under this name
    Column("forgotten_at", BigInteger),  # from then on it does not count: an administrator said so
    PrimaryKeyConstraint("repository_id", "name", "gun", "role"),
    ForeignKeyConstraint(
        ["repository_id", "gun", "role"],
        [trust_roles.c.repository_id, trust_roles.c.gun, trust_roles.c.role],
        name="fk_trust_targets_role_trust_roles",
        ondelete="CASCADE",
    ),
    # With all that is asked: SQLite would rather walk over a repository than look into rows by another index.
    Index(None, "repository_id", "digest", "forgotten_at"),
    Index(None, "repository_id", "gun", "role"),
    sqlite_with_rowid=False,
)

trust_delegations = Table(  # which keys may sign for a role
    "trust_delegations",
    metadata,
    Column("repository_id", ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False),
    Column("gun", _text, nullable=False),
    Column("role", _text, nullable=False),
    Column("key_id", _text, nullable=False),  # as the files have it
    Column("public_key_id", _text, nullable=False),  # as `public_keys` has it
    Column("has_signed", Boolean, nullable=False),  # the role's current file
    PrimaryKeyConstraint("repository_id", "gun", "role", "key_id"),
    Index(None, "key_id"),
    sqlite_with_rowid=False,
)

trust_changes = Table(  # what happened to collections, in turn
    "trust_changes",
    metadata,
    Column("id", _counted, Identity(), primary_key=True),
    Column("repository_id", BigInteger, nullable=False),  # which may be gone
    Column("gun", _text, nullable=False),
    Column("version", BigInteger, nullable=False),  # of the timestamp; 0 for a deletion
    Column("sha256", _text, nullable=False),  # of the timestamp; empty for a deletion
    Column("category", _text, nullable=False),
    CheckConstraint("category IN ('update', 'deletion')", "category"),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "repository_id", "gun", "id"),
    sqlite_autoincrement=True,
)

workers = Table(  # those that run jobs
    "workers",
    metadata,
    Column("id", _text, primary_key=True),  # 12 hexadecimal digits: of its replica
    Column("node", _text, nullable=False),
    Column("status", _text, nullable=False),
    CheckConstraint("status IN ('alive', 'dead', 'shutdown')", "status"),
    Column("capacity", _text, nullable=False, server_default="{}"),  # JSON: a number by name
    Column("session", _text, nullable=False),  # of the process that is this worker now
    Column("heartbeat_until", BigInteger, nullable=False),
    Column("places", Integer, nullable=False, server_default="0"),  # how many jobs it runs at a time
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", _text, primary_key=True),  # uuid
    Column("action", _text, nullable=False),
    Column("status", _text, nullable=False),
    Column("worker", _text, nullable=False, server_default=""),  # id; empty: nobody claimed it yet
    Column("session", _text, nullable=False, server_default=""),  # of the process that runs it
    Column("scheduled_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),  # for the last time; NULL: it never was
    Column("updated_at", BigInteger, nullable=False),
    Column("cause", _text, nullable=False, server_default="event"),  # why there is this job
    CheckConstraint("cause IN ('account', 'command', 'schedule', 'retry', 'event')", "cause"),
    Column("caused_by", _text, nullable=False, server_default=""),  # name of the account; empty: of none
    Column("retries_left", Integer, nullable=False),
    Column("retries_total", Integer, nullable=False),
    Column("retry_from", _text, nullable=False, server_default=""),  # id of the job that failed first
    Column("capacity", _text, nullable=False, server_default="{}"),  # JSON
    Column("parameters", _text, nullable=False, server_default="{}"),  # JSON: texts by name
    Column("deadline", BigInteger, nullable=False, server_default="0"),  # milliseconds; 0: none
    Column("stop_timeout", BigInteger, nullable=False, server_default="0"),  # milliseconds
    Column("done", BigInteger),  # progress, in `unit`
    Column("total", BigInteger),
    Column("unit", _text, nullable=False, server_default=""),
    Column("result", _text, nullable=False, server_default="{}"),  # JSON: numbers by name, as its action says
    Column("unique_key", _text),  # of a job that waits: there is one with it; NULL: there may be many like it
    Column("ended_at", BigInteger),  # NULL: it waits or runs
    Column("deaths", Integer, nullable=False, server_default="0"),  # workers that died while they ran it
    postgresql_with=_lively,
)
Index("ix_jobs_scheduled_at", jobs.c.scheduled_at, jobs.c.id)
Index("ix_jobs_action", jobs.c.action, jobs.c.scheduled_at)
_is_open = jobs.c.ended_at.is_(None)
Index("ix_jobs_open", jobs.c.scheduled_at, jobs.c.id, sqlite_where=_is_open, postgresql_where=_is_open)
_is_over = jobs.c.ended_at.is_not(None)
Index(
    "ix_jobs_ended",
    jobs.c.status,
    jobs.c.scheduled_at,
    jobs.c.id,
    sqlite_where=_is_over,
    postgresql_where=_is_over,
)
_is_another_try = jobs.c.retry_from != ""
Index("ix_jobs_retry_from", jobs.c.retry_from, sqlite_where=_is_another_try, postgresql_where=_is_another_try)
_waits_alone = jobs.c.unique_key.is_not(None)
Index(
    "uq_jobs_unique_key", jobs.c.unique_key, unique=True, sqlite_where=_waits_alone, postgresql_where=_waits_alone
)

job_logs = Table(
    "job_logs",
    metadata,
    Column("job", ForeignKey(jobs.c.id, ondelete="CASCADE"), nullable=False),
    Column("line", Integer, nullable=False),  # from 0
    Column("data", _text, nullable=False),  # JSON: level, message, time
    Column("level", _text, nullable=False, server_default="info"),
    CheckConstraint("level IN ('info', 'warning', 'error')", "level"),
    PrimaryKeyConstraint("job", "line"),
    sqlite_with_rowid=False,
)
_is_trouble = job_logs.c.level != "info"
Index(  # SQLite takes it before the key, as it knows one column more
    "ix_job_logs_trouble",
    job_logs.c.job,
    job_logs.c.level,
    job_logs.c.line,
    sqlite_where=_is_trouble,
    postgresql_where=_is_trouble,
)

crons = Table(
    "crons",
    metadata,
    Column("action", _text, primary_key=True),
    Column("id", _text, nullable=False),  # uuid
    Column("schedule", _text, nullable=False),  # as it was given
    Column("next_run", BigInteger, nullable=False, index=True),
    Column("retries", Integer, nullable=False),
    Column("capacity", _text, nullable=False, server_default="{}"),  # JSON
    Column("parameters", _text, nullable=False, server_default="{}"),  # JSON
    Column("deadline", BigInteger, nullable=False, server_default="0"),
    Column("stop_timeout", BigInteger, nullable=False, server_default="0"),
)

action_configs = Table(  # what parameters an action has when a job does not say
    "action_configs",
    metadata,
    Column("action", _text, primary_key=True),
    Column("id", _text, nullable=False),  # uuid
    Column("parameters", _text, nullable=False),  # JSON
)

replicas = Table(  # the process trees of this installation, as they report themselves
    "replicas",
    metadata,
    Column("id", _text, primary_key=True),  # 12 hexadecimal digits, kept in the data directory
    Column("node", _text, nullable=False),
    Column("version", _text, nullable=False),
    Column("components", _text, nullable=False),  # JSON
    Column("http_port", Integer),
    Column("https_port", Integer),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

for _table, _columns in (
    (
        repository_blobs,
        (repository_blobs.c.review_at, repository_blobs.c.repository_id, repository_blobs.c.digest),
    ),
    (manifests, (manifests.c.review_at, manifests.c.repository_id, manifests.c.digest)),
):
    Index(
        f"ix_{_table.name}_review_at",
        *_columns,
        sqlite_where=_table.c.review_at.is_not(None),
        postgresql_where=_table.c.review_at.is_not(None),
    )

SELDOM: dict[str, frozenset[str]] = {
    "accounts": frozenset({"id", "name", "kind", "is_admin", "is_auditor", "is_active"}),
    "organization_members": frozenset({"organization_id", "user_id", "is_admin"}),
    "team_members": frozenset({"team_id", "user_id"}),
    "tokens": frozenset({"id", "parent_id", "is_active", "expires_at"}),
    "repositories": frozenset({"id", "namespace_id", "path", "visibility", "deleted_at"}),
    "repository_grants": frozenset({"repository_id", "team_id", "level"}),
    "namespace_grants": frozenset({"namespace_id", "team_id", "level"}),
    "repository_user_grants": frozenset({"repository_id", "user_id", "level"}),
    "namespace_user_grants": frozenset({"namespace_id", "user_id", "level"}),
}
"""Columns that change seldom, by table: what rights depend on. See `dtr.db.seldom`."""
