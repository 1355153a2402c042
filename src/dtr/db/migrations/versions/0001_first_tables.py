"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
lively = {"autovacuum_vacuum_scale_factor": 0.02}
counted = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


sqlite_texts = (
    "CREATE VIRTUAL TABLE repository_texts USING fts5(path, folded, tokenize = 'trigram')",
    """
    CREATE TRIGGER repository_texts_insert AFTER INSERT ON repositories WHEN new.deleted_at IS NULL BEGIN
        INSERT INTO repository_texts (rowid, path, folded)
        VALUES (iif(new.visibility = 'public', -new.id, new.id), new.path, new.folded);
    END
    """,
    """
    CREATE TRIGGER repository_texts_update AFTER UPDATE ON repositories
    WHEN old.path <> new.path OR old.folded <> new.folded OR old.visibility <> new.visibility
        OR (old.deleted_at IS NULL) <> (new.deleted_at IS NULL)
    BEGIN
        DELETE FROM repository_texts WHERE rowid IN (old.id, -old.id);
        INSERT INTO repository_texts (rowid, path, folded)
        SELECT iif(new.visibility = 'public', -new.id, new.id), new.path, new.folded WHERE new.deleted_at IS NULL;
    END
    """,
    """
    CREATE TRIGGER repository_texts_delete AFTER DELETE ON repositories BEGIN
        DELETE FROM repository_texts WHERE rowid IN (old.id, -old.id);
    END
    """,
)


def upgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    find = "instr" if on_sqlite else "strpos"
    op.create_table(
        "accounts",
        sa.Column("id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("organization_id", text, nullable=True),
        sa.Column("full_name", text, server_default="", nullable=False),
        sa.Column("folded", text, server_default="", nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("is_auditor", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("is_imported", sa.Boolean(), nullable=False),
        sa.Column("password_hash", text, nullable=True),
        sa.Column("password_is_own", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_login_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('user', 'organization', 'robot')", name=op.f("ck_accounts_kind")),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["accounts.id"],
            name=op.f("fk_accounts_organization_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
    )
    op.create_index(
        "ix_accounts_administrators",
        "accounts",
        ["name"],
        unique=False,
        sqlite_where=sa.text("is_admin IS 1"),
        postgresql_where=sa.text("is_admin IS true"),
    )
    op.create_index(op.f("ix_accounts_full_name_name"), "accounts", ["full_name", "name"], unique=False)
    op.create_index(op.f("ix_accounts_organization_id"), "accounts", ["organization_id"], unique=False)
    op.create_table(
        "blobs",
        sa.Column("digest", text, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("location", text, nullable=True),
        sa.Column("state", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('present', 'missing')", name=op.f("ck_blobs_state")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blobs")),
        sa.UniqueConstraint("location", name=op.f("uq_blobs_location")),
        postgresql_with=lively,
    )
    op.create_table(
        "blob_contents",
        sa.Column("digest", text, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["blobs.digest"], name=op.f("fk_blob_contents_digest_blobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blob_contents")),
    )
    op.create_table(
        "gc_objects",
        sa.Column("location", text, nullable=False),
        sa.Column("driver_state", text, nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("delete_after", sa.BigInteger(), nullable=False),
        sa.Column("repeat_after", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", text, nullable=True),
        sa.Column("damage", text, nullable=True),
        sa.PrimaryKeyConstraint("location", name=op.f("pk_gc_objects")),
        postgresql_with=lively,
    )
    op.create_index(op.f("ix_gc_objects_delete_after"), "gc_objects", ["delete_after"], unique=False)
    op.create_index(
        "ix_gc_objects_attempts",
        "gc_objects",
        ["attempts"],
        unique=False,
        sqlite_where=sa.text("attempts >= 10"),
        postgresql_where=sa.text("attempts >= 10"),
    )

    op.create_table(
        "audit_positions",
        sa.Column("name", text, nullable=False),
        sa.Column("location", text, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_positions")),
    )
    op.create_table(
        "login_failures",
        sa.Column("subject", text, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("blocked_until", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_login_failures")),
    )
    op.create_index(op.f("ix_login_failures_expires_at"), "login_failures", ["expires_at"], unique=False)

    op.create_table(
        "signer_keys",
        sa.Column("key_id", text, nullable=False),
        sa.Column("gun", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("algorithm", text, nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("private", text, nullable=False),
        sa.Column("alias", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_signer_keys")),
    )
    op.create_index(op.f("ix_signer_keys_alias"), "signer_keys", ["alias"])
    op.create_index(
        "uq_signer_keys_pending",
        "signer_keys",
        ["gun", "role", "algorithm"],
        unique=True,
        sqlite_where=sa.text("last_used_at IS NULL"),
        postgresql_where=sa.text("last_used_at IS NULL"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", text, nullable=False),
        sa.Column("private_key", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("signs_from", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "usage",
        sa.Column("scope", text, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("pulls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pushes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pulled_at", sa.BigInteger(), nullable=True),
        sa.Column("pushed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_usage")),
    )
    op.create_table(
        "usage_deltas",
        sa.Column("id", counted, sa.Identity(always=False), nullable=False),
        sa.Column("scope", text, nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pulls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pushes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pulled_at", sa.BigInteger(), nullable=True),
        sa.Column("pushed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_deltas")),
        postgresql_with=lively,
    )
    op.create_index(op.f("ix_usage_deltas_scope"), "usage_deltas", ["scope"], unique=False)
    op.create_table(
        "usage_days",
        sa.Column("scope", text, nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("pulls", sa.BigInteger(), nullable=False),
        sa.Column("pushes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "day", name=op.f("pk_usage_days")),
    )
    op.create_index(op.f("ix_usage_days_day"), "usage_days", ["day"], unique=False)
    op.create_table(
        "organization_members",
        sa.Column("organization_id", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["accounts.id"],
            name=op.f("fk_organization_members_organization_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["accounts.id"],
            name=op.f("fk_organization_members_user_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "user_id", name=op.f("pk_organization_members")),
    )
    op.create_index(
        "ix_organization_members_owners",
        "organization_members",
        ["organization_id", "user_id"],
        unique=False,
        sqlite_where=sa.text("is_admin IS 1"),
        postgresql_where=sa.text("is_admin IS true"),
    )
    op.create_index(op.f("ix_organization_members_user_id"), "organization_members", ["user_id"], unique=False)

    op.create_table(
        "repositories",
        sa.Column("id", counted, sa.Identity(always=False), nullable=False),
        sa.Column("namespace_id", text, nullable=True),
        sa.Column("path", text, nullable=False),
        sa.Column(
            "name", text, sa.Computed(f"substr(path, {find}(path, '/') + 1)", persisted=True), nullable=False
        ),
        sa.Column("visibility", text, nullable=False),
        sa.Column("short_description", text, server_default="", nullable=False),
        sa.Column("long_description", text, server_default="", nullable=False),
        sa.Column("folded", text, server_default="", nullable=False),
        sa.Column("scan_on_push", sa.Boolean(), nullable=False),
        sa.Column("immutable_tags", sa.Boolean(), nullable=False),
        sa.Column("immutable_patterns", text, server_default="[]", nullable=False),
        sa.Column("tag_limit", sa.Integer(), nullable=False),
        sa.Column("has_policies", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "namespace_id IS NOT NULL OR deleted_at IS NOT NULL", name=op.f("ck_repositories_owned")
        ),
        sa.CheckConstraint("visibility IN ('public', 'private')", name=op.f("ck_repositories_visibility")),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["accounts.id"],
            name=op.f("fk_repositories_namespace_id_accounts"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repositories")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_repositories_deleted_at",
        "repositories",
        ["deleted_at"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NOT NULL"),
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_repositories_namespace_id"), "repositories", ["namespace_id"], unique=False)
    for columns in (
        ["visibility"],
        ["visibility", "path"],
        ["visibility", "name", "path"],
        ["namespace_id", "visibility", "path", "name"],
    ):
        op.create_index(
            f"ix_repositories_{'_'.join(columns)}",
            "repositories",
            [*columns, "deleted_at"],
            unique=False,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
            postgresql_include=["id"] if len(columns) > 1 else None,
        )
    if on_sqlite:
        for command in sqlite_texts:
            op.execute(sa.text(command))
    op.create_index(
        "uq_repositories_path",
        "repositories",
        ["path"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )

    op.create_table(
        "teams",
        sa.Column("id", text, nullable=False),
        sa.Column("organization_id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("description", text, server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["accounts.id"],
            name=op.f("fk_teams_organization_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_teams_organization_id_name")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", text, nullable=False),
        sa.Column("account_id", text, nullable=False),
        sa.Column("parent_id", text, nullable=True),
        sa.Column("kind", text, nullable=False),
        sa.Column("label", text, nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_address", text, server_default="", nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("creator_user_agent", text, server_default="", nullable=False),
        sa.Column("scope", text, nullable=True),
        sa.CheckConstraint("kind IN ('access', 'refresh')", name=op.f("ck_tokens_kind")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_tokens_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["tokens.id"], name=op.f("fk_tokens_parent_id_tokens"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_account_id_id"), "tokens", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_tokens_expires_at",
        "tokens",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("expires_at IS NOT NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_tokens_inactive",
        "tokens",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("is_active IS 0"),
        postgresql_where=sa.text("is_active IS false"),
    )
    op.create_index(op.f("ix_tokens_parent_id"), "tokens", ["parent_id"], unique=False)

    op.create_table(
        "manifests",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("media_type", text, nullable=False),
        sa.Column("artifact_type", text, nullable=True),
        sa.Column("subject", text, nullable=True),
        sa.Column("config_digest", text, nullable=True),
        sa.Column("config_media_type", text, nullable=True),
        sa.Column("annotations", text, nullable=True),
        sa.Column("content_size", sa.BigInteger(), nullable=False),
        sa.Column("platforms", sa.Integer(), server_default="0", nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("author", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("review_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name=op.f("fk_manifests_repository_id_repositories")
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name=op.f("pk_manifests")),
        postgresql_with=lively,
    )
    op.create_index(
        op.f("ix_manifests_digest_repository_id"), "manifests", ["digest", "repository_id"], unique=False
    )
    op.create_index(
        "ix_manifests_review_at",
        "manifests",
        ["review_at", "repository_id", "digest"],
        unique=False,
        sqlite_where=sa.text("review_at IS NOT NULL"),
        postgresql_where=sa.text("review_at IS NOT NULL"),
    )
    op.create_index(
        "ix_manifests_subject",
        "manifests",
        ["repository_id", "subject", "digest"],
        unique=False,
        sqlite_where=sa.text("subject IS NOT NULL"),
        postgresql_where=sa.text("subject IS NOT NULL"),
    )
    op.create_index(
        "ix_manifests_subject_artifact_type",
        "manifests",
        ["repository_id", "subject", "artifact_type", "digest"],
        unique=False,
        sqlite_where=sa.text("subject IS NOT NULL AND artifact_type IS NOT NULL"),
        postgresql_where=sa.text("subject IS NOT NULL AND artifact_type IS NOT NULL"),
    )

    op.create_table(
        "namespace_grants",
        sa.Column("namespace_id", text, nullable=False),
        sa.Column("team_id", text, nullable=False),
        sa.Column("level", text, nullable=False),
        sa.CheckConstraint(
            "level IN ('read-only', 'read-write', 'admin')", name=op.f("ck_namespace_grants_level")
        ),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["accounts.id"],
            name=op.f("fk_namespace_grants_namespace_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_namespace_grants_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("namespace_id", "team_id", name=op.f("pk_namespace_grants")),
    )
    op.create_index(op.f("ix_namespace_grants_team_id"), "namespace_grants", ["team_id"], unique=False)

    op.create_table(
        "repository_blobs",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("review_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name=op.f("fk_repository_blobs_digest_blobs")),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_repository_blobs_repository_id_repositories"),
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name=op.f("pk_repository_blobs")),
        sqlite_with_rowid=False,
        postgresql_with=lively,
    )
    op.create_index(op.f("ix_repository_blobs_digest"), "repository_blobs", ["digest"], unique=False)
    op.create_index(
        "ix_repository_blobs_review_at",
        "repository_blobs",
        ["review_at", "repository_id", "digest"],
        unique=False,
        sqlite_where=sa.text("review_at IS NOT NULL"),
        postgresql_where=sa.text("review_at IS NOT NULL"),
    )

    op.create_table(
        "repository_grants",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("team_id", text, nullable=False),
        sa.Column("level", text, nullable=False),
        sa.CheckConstraint(
            "level IN ('read-only', 'read-write', 'admin')", name=op.f("ck_repository_grants_level")
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_repository_grants_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_repository_grants_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository_id", "team_id", name=op.f("pk_repository_grants")),
    )
    op.create_index(op.f("ix_repository_grants_team_id"), "repository_grants", ["team_id"], unique=False)

    op.create_table(
        "team_members",
        sa.Column("team_id", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_team_members_team_id_teams"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["accounts.id"], name=op.f("fk_team_members_user_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "user_id", name=op.f("pk_team_members")),
    )
    op.create_index(op.f("ix_team_members_user_id"), "team_members", ["user_id"], unique=False)

    op.create_table(
        "uploads",
        sa.Column("id", text, nullable=False),
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("location", text, nullable=False),
        sa.Column("driver_state", text, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("algorithm", text, nullable=False),
        sa.Column("digest", text, nullable=True),
        sa.Column("writer", text, server_default="", nullable=False),
        sa.Column("writer_until", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name=op.f("fk_uploads_repository_id_repositories")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("location", name=op.f("uq_uploads_location")),
        postgresql_with=lively,
    )
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"], unique=False)
    op.create_index(op.f("ix_uploads_repository_id"), "uploads", ["repository_id"], unique=False)

    op.create_table(
        "used_upload_ids",
        sa.Column("id", text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_used_upload_ids")),
        sqlite_with_rowid=False,
        postgresql_with=lively,
    )

    op.create_table(
        "shared_keys",
        sa.Column("name", text, nullable=False),
        sa.Column("key", text, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_shared_keys")),
    )

    op.create_table(
        "manifest_references",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("manifest", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("target", text, nullable=False),
        sa.CheckConstraint("kind IN ('blob', 'manifest')", name=op.f("ck_manifest_references_kind")),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["manifests.repository_id", "manifests.digest"],
            name=op.f("fk_manifest_references_repository_id_manifest_manifests"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "repository_id", "manifest", "kind", "target", name=op.f("pk_manifest_references")
        ),
        sqlite_with_rowid=False,
        postgresql_with=lively,
    )
    op.create_index(
        op.f("ix_manifest_references_repository_id_kind_target"),
        "manifest_references",
        ["repository_id", "kind", "target"],
        unique=False,
    )

    op.create_table(
        "tags",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("manifest", text, nullable=False),
        sa.Column("author", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("version_key", text, server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["manifests.repository_id", "manifests.digest"],
            name=op.f("fk_tags_repository_id_manifest_manifests"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_tags")),
        sqlite_with_rowid=False,
        postgresql_with=lively,
    )
    op.create_index(
        op.f("ix_tags_repository_id_created_at_name"),
        "tags",
        ["repository_id", "created_at", "name"],
        unique=False,
    )
    op.create_index(
        op.f("ix_tags_repository_id_updated_at_name"),
        "tags",
        ["repository_id", "updated_at", "name"],
        unique=False,
    )
    op.create_index(
        op.f("ix_tags_repository_id_version_key_name"),
        "tags",
        ["repository_id", "version_key", "name"],
        unique=False,
    )
    op.create_index(
        op.f("ix_tags_repository_id_manifest_version_key"),
        "tags",
        ["repository_id", "manifest", "version_key"],
        unique=False,
    )
    op.create_table(
        "tag_origins",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("manifest", text, nullable=False),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.Column("source_repository", text, nullable=False),
        sa.Column("source_tag", text, nullable=False),
        sa.Column("policy_id", text, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "name"],
            ["tags.repository_id", "tags.name"],
            name=op.f("fk_tag_origins_repository_id_name_tags"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_tag_origins")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("id", counted, sa.Identity(always=False), nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.Column("type", text, nullable=False),
        sa.Column("actor", text, nullable=False),
        sa.Column("actor_name", text, nullable=False),
        sa.Column("actor_type", text, nullable=False),
        sa.Column("address", text, nullable=False),
        sa.Column("repository_id", sa.BigInteger(), nullable=True),
        sa.Column("repository", text, nullable=False),
        sa.Column("object_type", text, nullable=False),
        sa.Column("object_id", text, nullable=False),
        sa.Column("object_name", text, nullable=False),
        sa.Column("object_content", text, nullable=False),
        sa.Column("target_type", text, nullable=True),
        sa.Column("target_id", text, nullable=True),
        sa.Column("target_name", text, nullable=True),
        sa.Column("target_content", text, nullable=True),
        sa.Column("times", sa.BigInteger(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_published_at"), "events", ["published_at"], unique=False)
    for name, columns, kind in (
        ("id", ["id"], "type != 'GET'"),
        ("object_type_type_id", ["object_type", "type", "id"], "type != 'GET'"),
        ("repository_id_id", ["repository_id", "id"], "type != 'GET'"),
        ("repository_id_id_pulls", ["repository_id", "id"], "type = 'GET'"),
        ("actor_id", ["actor", "id"], "type != 'GET'"),
        ("actor_id_pulls", ["actor", "id"], "type = 'GET'"),
        ("address_id", ["address", "id"], "type != 'GET'"),
        ("address_id_pulls", ["address", "id"], "type = 'GET'"),
    ):
        op.create_index(
            f"ix_events_{name}",
            "events",
            columns,
            unique=False,
            sqlite_where=sa.text(kind),
            postgresql_where=sa.text(kind),
        )
    op.create_index(
        "ix_events_tag",
        "events",
        ["repository_id", "object_name", "id"],
        unique=False,
        sqlite_where=sa.text("object_type = 'tag' AND type != 'GET'"),
        postgresql_where=sa.text("object_type = 'tag' AND type != 'GET'"),
    )
    op.create_table(
        "event_cursors",
        sa.Column("name", text, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("holder", text, nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_event_cursors")),
    )
    op.create_table(
        "replicas",
        sa.Column("id", text, nullable=False),
        sa.Column("node", text, nullable=False),
        sa.Column("version", text, nullable=False),
        sa.Column("components", text, nullable=False),
        sa.Column("http_port", sa.Integer(), nullable=True),
        sa.Column("https_port", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
    )
    op.create_table(
        "revisions",
        sa.Column("name", text, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_revisions")),
    )
    op.create_table(
        "settings",
        sa.Column("name", text, nullable=False),
        sa.Column("value", text, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_settings")),
    )
    op.create_table(
        "image_configs",
        sa.Column("digest", text, nullable=False),
        sa.Column("os", text, nullable=False),
        sa.Column("os_version", text, nullable=False),
        sa.Column("architecture", text, nullable=False),
        sa.Column("variant", text, nullable=False),
        sa.Column("history", text, nullable=False),
        sa.Column("labels", text, nullable=False),
        sa.Column("runtime", text, server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["blobs.digest"], name=op.f("fk_image_configs_digest_blobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_image_configs")),
    )
    op.create_table(
        "namespace_user_grants",
        sa.Column("namespace_id", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("level", text, nullable=False),
        sa.CheckConstraint(
            "level IN ('read-only', 'read-write', 'admin')", name=op.f("ck_namespace_user_grants_level")
        ),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["accounts.id"],
            name=op.f("fk_namespace_user_grants_namespace_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["accounts.id"],
            name=op.f("fk_namespace_user_grants_user_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("namespace_id", "user_id", name=op.f("pk_namespace_user_grants")),
    )
    op.create_index(op.f("ix_namespace_user_grants_user_id"), "namespace_user_grants", ["user_id"], unique=False)
    op.create_table(
        "public_keys",
        sa.Column("account_id", text, nullable=False),
        sa.Column("id", text, nullable=False),
        sa.Column("public_key", text, nullable=False),
        sa.Column("label", text, server_default="", nullable=False),
        sa.Column("certificates", text, server_default="[]", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_public_keys_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_public_keys")),
    )
    op.create_index(op.f("ix_public_keys_id_account_id"), "public_keys", ["id", "account_id"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("id", text, nullable=False),
        sa.Column("account_id", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("address", text, server_default="", nullable=False),
        sa.Column("user_agent", text, server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_sessions_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_account_id"), "sessions", ["account_id"], unique=False)
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"], unique=False)
    op.create_table(
        "user_settings",
        sa.Column("account_id", text, nullable=False),
        sa.Column("language", text, nullable=True),
        sa.Column("content_cache", text, nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_user_settings_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_user_settings")),
    )
    op.create_table(
        "pulls",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("reference", text, nullable=False),
        sa.Column("pulls", sa.BigInteger(), nullable=False),
        sa.Column("last_pulled_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_pulls_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "reference", name=op.f("pk_pulls")),
        postgresql_with=lively,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "repository_summaries",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("namespace_id", text, nullable=False),
        sa.Column("visibility", text, nullable=False),
        sa.Column("path", text, nullable=False),
        sa.Column("latest_tag", text, server_default="", nullable=False),
        sa.Column("kind", text, server_default="", nullable=False),
        sa.Column("is_signed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pulls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pushed_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_repository_summaries_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", name=op.f("pk_repository_summaries")),
        postgresql_with=lively,
    )
    op.create_index(
        op.f("ix_repository_summaries_namespace_id_visibility_repository_id"),
        "repository_summaries",
        ["namespace_id", "visibility", "repository_id"],
        unique=False,
    )
    op.create_index(
        "ix_repository_summaries_pushed_at",
        "repository_summaries",
        [sa.literal_column("pushed_at DESC"), "path", "visibility", "namespace_id"],
        unique=False,
        postgresql_include=["repository_id"],
    )
    op.create_table(
        "pinned_repositories",
        sa.Column("account_id", text, nullable=False),
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_pinned_repositories_account_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_pinned_repositories_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("account_id", "repository_id", name=op.f("pk_pinned_repositories")),
    )
    op.create_index(
        op.f("ix_pinned_repositories_repository_id"), "pinned_repositories", ["repository_id"], unique=False
    )
    op.create_table(
        "repository_redirects",
        sa.Column("path", text, nullable=False),
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_repository_redirects_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_repository_redirects")),
    )
    op.create_index(
        op.f("ix_repository_redirects_repository_id"), "repository_redirects", ["repository_id"], unique=False
    )
    op.create_table(
        "repository_user_grants",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("level", text, nullable=False),
        sa.CheckConstraint(
            "level IN ('read-only', 'read-write', 'admin')", name=op.f("ck_repository_user_grants_level")
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_repository_user_grants_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["accounts.id"],
            name=op.f("fk_repository_user_grants_user_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "user_id", name=op.f("pk_repository_user_grants")),
    )
    op.create_index(op.f("ix_repository_user_grants_user_id"), "repository_user_grants", ["user_id"], unique=False)
    op.create_table(
        "action_configs",
        sa.Column("action", text, nullable=False),
        sa.Column("id", text, nullable=False),
        sa.Column("parameters", text, nullable=False),
        sa.PrimaryKeyConstraint("action", name=op.f("pk_action_configs")),
    )
    op.create_table(
        "crons",
        sa.Column("action", text, nullable=False),
        sa.Column("id", text, nullable=False),
        sa.Column("schedule", text, nullable=False),
        sa.Column("next_run", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("capacity", text, server_default="{}", nullable=False),
        sa.Column("parameters", text, server_default="{}", nullable=False),
        sa.Column("deadline", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("stop_timeout", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("action", name=op.f("pk_crons")),
    )
    op.create_index(op.f("ix_crons_next_run"), "crons", ["next_run"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", text, nullable=False),
        sa.Column("action", text, nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("worker", text, server_default="", nullable=False),
        sa.Column("session", text, server_default="", nullable=False),
        sa.Column("scheduled_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("cause", text, server_default="event", nullable=False),
        sa.Column("caused_by", text, server_default="", nullable=False),
        sa.Column("retries_left", sa.Integer(), nullable=False),
        sa.Column("retries_total", sa.Integer(), nullable=False),
        sa.Column("retry_from", text, server_default="", nullable=False),
        sa.Column("capacity", text, server_default="{}", nullable=False),
        sa.Column("parameters", text, server_default="{}", nullable=False),
        sa.Column("deadline", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("stop_timeout", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=True),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("unit", text, server_default="", nullable=False),
        sa.Column("result", text, server_default="{}", nullable=False),
        sa.Column("unique_key", text, nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("deaths", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "cause IN ('account', 'command', 'schedule', 'retry', 'event')", name=op.f("ck_jobs_cause")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        postgresql_with=lively,
    )
    op.create_index("ix_jobs_action", "jobs", ["action", "scheduled_at"], unique=False)
    op.create_index(
        "ix_jobs_ended",
        "jobs",
        ["status", "scheduled_at", "id"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_open",
        "jobs",
        ["scheduled_at", "id"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "ix_jobs_retry_from",
        "jobs",
        ["retry_from"],
        unique=False,
        sqlite_where=sa.text("retry_from != ''"),
        postgresql_where=sa.text("retry_from != ''"),
    )
    op.create_index("ix_jobs_scheduled_at", "jobs", ["scheduled_at", "id"], unique=False)
    op.create_index(
        "uq_jobs_unique_key",
        "jobs",
        ["unique_key"],
        unique=True,
        sqlite_where=sa.text("unique_key IS NOT NULL"),
        postgresql_where=sa.text("unique_key IS NOT NULL"),
    )
    op.create_table(
        "workers",
        sa.Column("id", text, nullable=False),
        sa.Column("node", text, nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("capacity", text, server_default="{}", nullable=False),
        sa.Column("session", text, nullable=False),
        sa.Column("heartbeat_until", sa.BigInteger(), nullable=False),
        sa.Column("places", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint("status IN ('alive', 'dead', 'shutdown')", name=op.f("ck_workers_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "fetches",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("upload_id", text, nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name=op.f("fk_fetches_upload_id_uploads"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name=op.f("pk_fetches")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_fetches_upload_id"), "fetches", ["upload_id"], unique=False)
    op.create_table(
        "job_logs",
        sa.Column("job", text, nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("data", text, nullable=False),
        sa.Column("level", text, server_default="info", nullable=False),
        sa.CheckConstraint("level IN ('info', 'warning', 'error')", name=op.f("ck_job_logs_level")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_logs_job_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "line", name=op.f("pk_job_logs")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_job_logs_trouble",
        "job_logs",
        ["job", "level", "line"],
        unique=False,
        sqlite_where=sa.text("level != 'info'"),
        postgresql_where=sa.text("level != 'info'"),
    )
    op.create_table(
        "pruning_policies",
        sa.Column("id", text, nullable=False),
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("rules", text, nullable=False),
        sa.Column("keep", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_pruned_at", sa.BigInteger(), nullable=True),
        sa.Column("waiting", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deleted", sa.Integer(), server_default="0", nullable=False),
        sa.Column("newest", sa.Integer(), server_default="0", nullable=False),
        sa.Column("signed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("protected", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_job", text, server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_pruning_policies_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pruning_policies")),
    )
    op.create_index(op.f("ix_pruning_policies_repository_id"), "pruning_policies", ["repository_id"], unique=False)
    op.create_table(
        "promotion_policies",
        sa.Column("id", text, nullable=False),
        sa.Column("source_id", counted, nullable=False),
        sa.Column("target_id", counted, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("rules", text, nullable=False),
        sa.Column("tag_template", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_promoted_at", sa.BigInteger(), nullable=True),
        sa.Column("last_failed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_failure", text, server_default="", nullable=False),
        sa.Column("last_job", text, server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["repositories.id"],
            name=op.f("fk_promotion_policies_source_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["repositories.id"],
            name=op.f("fk_promotion_policies_target_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotion_policies")),
    )
    for column in ("source_id", "target_id"):
        op.create_index(op.f(f"ix_promotion_policies_{column}"), "promotion_policies", [column], unique=False)
    op.create_table(
        "policy_tags",
        sa.Column("policy_id", text, nullable=False),
        sa.Column("tag", text, nullable=False),
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("moment", sa.BigInteger(), nullable=False),
        sa.Column("chain", text, nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("waits_for", text, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('done', 'waits')", name=op.f("ck_policy_tags_state")),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_policy_tags_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("policy_id", "tag", name=op.f("pk_policy_tags")),
    )
    op.create_index(
        "ix_policy_tags_repository_id_digest", "policy_tags", ["repository_id", "digest"], unique=False
    )
    op.create_index(
        "ix_policy_tags_waiting",
        "policy_tags",
        ["policy_id", "tag"],
        unique=False,
        sqlite_where=sa.text("state = 'waits'"),
        postgresql_where=sa.text("state = 'waits'"),
    )
    op.create_table(
        "storages",
        sa.Column("name", text, nullable=False),
        sa.Column("driver", text, nullable=False),
        sa.Column("parameters", text, nullable=True),
        sa.Column("secrets", text, nullable=True),
        sa.Column("place", text, nullable=False),
        sa.Column("redirect_seconds", sa.Integer(), nullable=True),
        sa.Column("redirect_except", text, nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("used_until", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("secrets IS NULL OR parameters IS NOT NULL", name=op.f("ck_storages_described")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_storages")),
    )
    op.create_table(
        "namespace_storages",
        sa.Column("namespace_id", text, nullable=False),
        sa.Column("storage", text, nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["accounts.id"],
            name=op.f("fk_namespace_storages_namespace_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["storage"], ["storages.name"], name=op.f("fk_namespace_storages_storage_storages")
        ),
        sa.PrimaryKeyConstraint("namespace_id", name=op.f("pk_namespace_storages")),
    )
    op.create_index(op.f("ix_namespace_storages_storage"), "namespace_storages", ["storage"], unique=False)
    op.create_table(
        "remotes",
        sa.Column("id", text, nullable=False),
        sa.Column("name", text, nullable=True),
        sa.Column("repository_id", counted, nullable=True),
        sa.Column("namespace_id", text, nullable=True),
        sa.Column("host", text, nullable=False),
        sa.Column("username", text, nullable=False),
        sa.Column("password", text, nullable=True),
        sa.Column("token", text, nullable=True),
        sa.Column("ca", text, nullable=False),
        sa.Column("skip_tls_verification", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(name IS NULL) = (repository_id IS NOT NULL)", name=op.f("ck_remotes_single")),
        sa.CheckConstraint("namespace_id IS NULL OR name IS NOT NULL", name=op.f("ck_remotes_shared")),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_remotes_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["namespace_id"], ["accounts.id"], name=op.f("fk_remotes_namespace_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remotes")),
        sa.UniqueConstraint("namespace_id", "name", name=op.f("uq_remotes_namespace_id_name")),
    )
    op.create_index(op.f("ix_remotes_repository_id"), "remotes", ["repository_id"], unique=False)
    op.create_index(
        "uq_remotes_name",
        "remotes",
        ["name"],
        unique=True,
        sqlite_where=sa.text("namespace_id IS NULL"),
        postgresql_where=sa.text("namespace_id IS NULL"),
    )
    op.create_table(
        "signing_identities",
        sa.Column("id", text, nullable=False),
        sa.Column("namespace_id", text, nullable=True),
        sa.Column("name", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("content", text, nullable=False),
        sa.Column("subject", text, nullable=False),
        sa.Column("fingerprint", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('key', 'certificate', 'keyless')", name=op.f("ck_signing_identities_kind")),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["accounts.id"],
            name=op.f("fk_signing_identities_namespace_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_identities")),
        sa.UniqueConstraint("namespace_id", "name", name=op.f("uq_signing_identities_namespace_id_name")),
    )
    op.create_index(
        "uq_signing_identities_name",
        "signing_identities",
        ["name"],
        unique=True,
        sqlite_where=sa.text("namespace_id IS NULL"),
        postgresql_where=sa.text("namespace_id IS NULL"),
    )
    op.create_table(
        "signatures",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("subject", text, nullable=False),
        sa.Column("manifest", text, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tag", text, nullable=True),
        sa.Column("kind", text, nullable=False),
        sa.Column("format", text, nullable=False),
        sa.Column("predicate_type", text, nullable=False),
        sa.Column("signer", text, nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=True),
        sa.Column("problem", text, nullable=False),
        sa.Column("objection", text, nullable=False),
        sa.Column("checked_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('signature', 'attestation')", name=op.f("ck_signatures_kind")),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["manifests.repository_id", "manifests.digest"],
            name=op.f("fk_signatures_repository_id_manifest_manifests"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "subject", "manifest", "number", name=op.f("pk_signatures")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_signatures_repository_id_manifest"), "signatures", ["repository_id", "manifest"], unique=False
    )
    op.create_table(
        "signature_proofs",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("subject", text, nullable=False),
        sa.Column("manifest", text, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("identity_id", text, nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id", "subject", "manifest", "number"],
            ["signatures.repository_id", "signatures.subject", "signatures.manifest", "signatures.number"],
            name=op.f("fk_signature_proofs_repository_id_subject_manifest_number_signatures"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["identity_id"],
            ["signing_identities.id"],
            name=op.f("fk_signature_proofs_identity_id_signing_identities"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "repository_id", "subject", "manifest", "number", "identity_id", name=op.f("pk_signature_proofs")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_signature_proofs_identity_id"), "signature_proofs", ["identity_id"], unique=False)
    op.create_table(
        "enforcement_policies",
        sa.Column("scope", text, nullable=False),
        sa.Column("repository_id", counted, nullable=True),
        sa.Column("namespace_id", text, nullable=True),
        sa.Column("mode", text, nullable=False),
        sa.Column("signers", text, nullable=False),
        sa.Column("teams", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "repository_id IS NULL OR namespace_id IS NULL", name=op.f("ck_enforcement_policies_scope")
        ),
        sa.CheckConstraint("mode IN ('off', 'report', 'enforce')", name=op.f("ck_enforcement_policies_mode")),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["accounts.id"],
            name=op.f("fk_enforcement_policies_namespace_id_accounts"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_enforcement_policies_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_enforcement_policies")),
    )
    op.create_index(
        op.f("ix_enforcement_policies_repository_id"), "enforcement_policies", ["repository_id"], unique=False
    )
    op.create_index(
        op.f("ix_enforcement_policies_namespace_id"), "enforcement_policies", ["namespace_id"], unique=False
    )
    op.create_table(
        "enforcement_exceptions",
        sa.Column("id", text, nullable=False),
        sa.Column("scope", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("value", text, nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("author", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('tag', 'digest', 'account')", name=op.f("ck_enforcement_exceptions_kind")),
        sa.ForeignKeyConstraint(
            ["scope"],
            ["enforcement_policies.scope"],
            name=op.f("fk_enforcement_exceptions_scope_enforcement_policies"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enforcement_exceptions")),
    )
    op.create_index(op.f("ix_enforcement_exceptions_scope"), "enforcement_exceptions", ["scope"], unique=False)
    op.create_table(
        "upstreams",
        sa.Column("id", text, nullable=False),
        sa.Column("repository_id", counted, nullable=True),
        sa.Column("namespace_id", text, nullable=True),
        sa.Column("remote_id", text, nullable=False),
        sa.Column("remote_path", text, nullable=False),
        sa.Column("tag_patterns", text, nullable=False),
        sa.Column("visibility", text, nullable=False),
        sa.Column("max_age", sa.BigInteger(), nullable=False),
        sa.Column("keep_for", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(repository_id IS NULL) <> (namespace_id IS NULL)", name=op.f("ck_upstreams_scope")),
        sa.CheckConstraint("visibility IN ('public', 'private')", name=op.f("ck_upstreams_visibility")),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_upstreams_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["namespace_id"], ["accounts.id"], name=op.f("fk_upstreams_namespace_id_accounts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["remote_id"], ["remotes.id"], name=op.f("fk_upstreams_remote_id_remotes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upstreams")),
        sa.UniqueConstraint("repository_id", name=op.f("uq_upstreams_repository_id")),
        sa.UniqueConstraint("namespace_id", name=op.f("uq_upstreams_namespace_id")),
    )
    op.create_index(op.f("ix_upstreams_remote_id"), "upstreams", ["remote_id"], unique=False)
    op.create_table(
        "cached_repositories",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("upstream_id", text, nullable=True),
        sa.Column("remote_path", text, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_cached_repositories_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["upstream_id"],
            ["upstreams.id"],
            name=op.f("fk_cached_repositories_upstream_id_upstreams"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("repository_id", name=op.f("pk_cached_repositories")),
    )
    op.create_index(
        op.f("ix_cached_repositories_upstream_id"), "cached_repositories", ["upstream_id"], unique=False
    )
    op.create_table(
        "cached_tags",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("checked_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "name"],
            ["tags.repository_id", "tags.name"],
            name=op.f("fk_cached_tags_repository_id_name_tags"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_cached_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "mirroring_policies",
        sa.Column("id", text, nullable=False),
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("direction", text, nullable=False),
        sa.Column("remote_id", text, nullable=False),
        sa.Column("remote_repository", text, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("rules", text, nullable=False),
        sa.Column("tag_template", text, nullable=False),
        sa.Column("with_referrers", sa.Boolean(), nullable=False),
        sa.Column("with_deletions", sa.Boolean(), nullable=False),
        sa.Column("schedule", text, nullable=False),
        sa.Column("next_run", sa.BigInteger(), nullable=True),
        sa.Column("skips_present", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_mirrored_at", sa.BigInteger(), nullable=True),
        sa.Column("status_code", text, server_default="", nullable=False),
        sa.Column("status_detail", text, server_default="", nullable=False),
        sa.Column("status_at", sa.BigInteger(), nullable=True),
        sa.Column("last_job", text, server_default="", nullable=False),
        sa.CheckConstraint("direction IN ('push', 'poll')", name=op.f("ck_mirroring_policies_direction")),
        sa.ForeignKeyConstraint(
            ["remote_id"],
            ["remotes.id"],
            name=op.f("fk_mirroring_policies_remote_id_remotes"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_mirroring_policies_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mirroring_policies")),
    )
    for column in ("remote_id", "repository_id"):
        op.create_index(op.f(f"ix_mirroring_policies_{column}"), "mirroring_policies", [column], unique=False)
    op.create_index(
        "ix_mirroring_policies_next_run",
        "mirroring_policies",
        ["next_run"],
        unique=False,
        sqlite_where=sa.text("next_run IS NOT NULL"),
        postgresql_where=sa.text("next_run IS NOT NULL"),
    )
    op.create_table(
        "mirrored_tags",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("policy_id", text, nullable=False),
        sa.Column("tag", text, nullable=False),
        sa.Column("direction", text, nullable=False),
        sa.Column("target_tag", text, nullable=False),
        sa.Column("remote", text, nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("detail", text, nullable=False),
        sa.Column("attempted_at", sa.BigInteger(), nullable=False),
        sa.Column("mirrored_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "status IN ('mirrored', 'failed', 'waiting', 'skipped')", name=op.f("ck_mirrored_tags_status")
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_mirrored_tags_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "policy_id", "tag", name=op.f("pk_mirrored_tags")),
        sqlite_with_rowid=False,
    )
    for column in ("digest", "tag", "target_tag"):
        op.create_index(
            op.f(f"ix_mirrored_tags_repository_id_{column}"),
            "mirrored_tags",
            ["repository_id", column],
            unique=False,
        )
    op.create_table(
        "webhooks",
        sa.Column("id", text, nullable=False),
        sa.Column("type", text, nullable=False),
        sa.Column("repository_id", sa.BigInteger(), nullable=True),
        sa.Column("namespace_id", text, nullable=True),
        sa.Column("author_id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("endpoint", text, nullable=False),
        sa.Column("format", text, nullable=False),
        sa.Column("tls_cert", text, nullable=False),
        sa.Column("skip_tls_verification", sa.Boolean(), nullable=False),
        sa.Column("secret", text, nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("last_successful_at", sa.BigInteger(), nullable=True),
        sa.Column("failing_since", sa.BigInteger(), nullable=True),
        sa.Column("last_error", text, server_default="", nullable=False),
        sa.CheckConstraint("format IN ('dtr', 'cloudevents')", name=op.f("ck_webhooks_format")),
        sa.CheckConstraint("repository_id IS NULL OR namespace_id IS NULL", name=op.f("ck_webhooks_scope")),
        sa.ForeignKeyConstraint(
            ["namespace_id"], ["accounts.id"], name=op.f("fk_webhooks_namespace_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_author_id"), "webhooks", ["author_id"], unique=False)
    op.create_index(op.f("ix_webhooks_namespace_id"), "webhooks", ["namespace_id"], unique=False)
    op.create_index(op.f("ix_webhooks_repository_id"), "webhooks", ["repository_id"], unique=False)
    op.create_index(
        "ix_webhooks_type_active",
        "webhooks",
        ["type"],
        unique=False,
        sqlite_where=sa.text("is_active IS 1"),
        postgresql_where=sa.text("is_active IS true"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", text, nullable=False),
        sa.Column("webhook_id", text, nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.Column("repeats", text, server_default="", nullable=False),
        sa.Column("body", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempted_at", sa.BigInteger(), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("answer", text, server_default="", nullable=False),
        sa.Column("error", text, server_default="", nullable=False),
        sa.Column("duration", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "status IN ('waiting', 'delivered', 'failed')", name=op.f("ck_webhook_deliveries_status")
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhook_id_webhooks"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("webhook_id", "event_id", name=op.f("uq_webhook_deliveries_webhook_id_event_id")),
    )
    op.create_index("ix_webhook_deliveries_created_at", "webhook_deliveries", ["created_at"], unique=False)
    op.create_index(
        "ix_webhook_deliveries_webhook_id_created_at",
        "webhook_deliveries",
        ["webhook_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "trust_files",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("gun", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("sha256", text, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_trust_files_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "gun", "role", "version", name=op.f("pk_trust_files")),
    )
    op.create_index(
        "ix_trust_files_repository_id_gun_sha256", "trust_files", ["repository_id", "gun", "sha256"], unique=False
    )
    op.create_table(
        "trust_roles",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("gun", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "gun", "role", "version"],
            ["trust_files.repository_id", "trust_files.gun", "trust_files.role", "trust_files.version"],
            name="fk_trust_roles_version_trust_files",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "gun", "role", name=op.f("pk_trust_roles")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "trust_targets",
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("gun", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.Column("forgotten_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id", "gun", "role"],
            ["trust_roles.repository_id", "trust_roles.gun", "trust_roles.role"],
            name="fk_trust_targets_role_trust_roles",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", "gun", "role", name=op.f("pk_trust_targets")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_trust_targets_repository_id_digest_forgotten_at",
        "trust_targets",
        ["repository_id", "digest", "forgotten_at"],
        unique=False,
    )
    op.create_index(
        "ix_trust_targets_repository_id_gun_role", "trust_targets", ["repository_id", "gun", "role"], unique=False
    )
    op.create_table(
        "trust_delegations",
        sa.Column("repository_id", counted, nullable=False),
        sa.Column("gun", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("key_id", text, nullable=False),
        sa.Column("public_key_id", text, nullable=False),
        sa.Column("has_signed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_trust_delegations_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "gun", "role", "key_id", name=op.f("pk_trust_delegations")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trust_delegations_key_id", "trust_delegations", ["key_id"], unique=False)
    op.create_table(
        "trust_changes",
        sa.Column("id", counted, sa.Identity(always=False), nullable=False),
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("gun", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("sha256", text, nullable=False),
        sa.Column("category", text, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("category IN ('update', 'deletion')", name=op.f("ck_trust_changes_category")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trust_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_trust_changes_repository_id_gun_id", "trust_changes", ["repository_id", "gun", "id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("trust_changes")
    op.drop_table("trust_delegations")
    op.drop_table("trust_targets")
    op.drop_table("trust_roles")
    op.drop_table("trust_files")
    op.drop_table("mirrored_tags")
    op.drop_table("mirroring_policies")
    op.drop_table("webhook_deliveries")
    op.drop_table("cached_tags")
    op.drop_table("cached_repositories")
    op.drop_table("signature_proofs")
    op.drop_table("signatures")
    op.drop_table("signing_identities")
    op.drop_table("upstreams")
    op.drop_table("enforcement_exceptions")
    op.drop_table("enforcement_policies")
    op.drop_table("remotes")
    op.drop_table("namespace_storages")
    op.drop_table("storages")
    op.drop_table("webhooks")
    op.drop_table("policy_tags")
    op.drop_table("promotion_policies")
    op.drop_table("pruning_policies")
    op.drop_table("job_logs")
    op.drop_table("jobs")
    op.drop_table("workers")
    op.drop_table("crons")
    op.drop_table("action_configs")
    op.drop_table("namespace_user_grants")
    op.drop_table("repository_user_grants")
    op.drop_table("repository_redirects")
    op.drop_table("pinned_repositories")
    op.drop_table("repository_summaries")
    op.drop_table("pulls")
    op.drop_table("image_configs")
    op.drop_table("user_settings")
    op.drop_table("sessions")
    op.drop_table("public_keys")
    op.drop_table("event_cursors")
    op.drop_table("events")
    op.drop_table("settings")
    op.drop_table("revisions")
    op.drop_table("replicas")
    op.drop_table("fetches")
    op.drop_table("tag_origins")
    op.drop_table("tags")
    op.drop_table("manifest_references")
    op.drop_table("shared_keys")
    op.drop_table("used_upload_ids")
    op.drop_table("uploads")
    op.drop_table("team_members")
    op.drop_table("repository_grants")
    op.drop_table("repository_blobs")
    op.drop_table("namespace_grants")
    op.drop_table("manifests")
    op.drop_table("tokens")
    op.drop_table("teams")
    op.drop_table("repositories")
    op.drop_table("organization_members")
    op.drop_table("usage_days")
    op.drop_table("usage_deltas")
    op.drop_table("usage")
    op.drop_table("signing_keys")
    op.drop_table("signer_keys")
    op.drop_table("login_failures")
    op.drop_table("gc_objects")
    op.drop_table("audit_positions")
    op.drop_table("blobs")
    op.drop_table("accounts")
