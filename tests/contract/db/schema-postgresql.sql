CREATE TABLE accounts (
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    full_name text COLLATE "C" NOT NULL DEFAULT ''::text,
    is_admin boolean NOT NULL,
    is_active boolean NOT NULL,
    is_imported boolean NOT NULL,
    password_hash text COLLATE "C",
    created_at bigint NOT NULL,
    CONSTRAINT pk_accounts PRIMARY KEY (id),
    CONSTRAINT uq_accounts_name UNIQUE (name),
    CONSTRAINT ck_accounts_kind CHECK ((kind = ANY (ARRAY['user'::text, 'organization'::text])))
);

CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE blob_contents (
    digest text COLLATE "C" NOT NULL,
    content bytea NOT NULL,
    CONSTRAINT pk_blob_contents PRIMARY KEY (digest),
    CONSTRAINT fk_blob_contents_digest_blobs FOREIGN KEY (digest) REFERENCES blobs(digest) ON DELETE CASCADE
);

CREATE TABLE blobs (
    digest text COLLATE "C" NOT NULL,
    size bigint NOT NULL,
    location text COLLATE "C",
    state text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT pk_blobs PRIMARY KEY (digest),
    CONSTRAINT uq_blobs_location UNIQUE (location),
    CONSTRAINT ck_blobs_state CHECK ((state = ANY (ARRAY['present'::text, 'missing'::text])))
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE TABLE gc_objects (
    location text COLLATE "C" NOT NULL,
    driver_state text COLLATE "C",
    size bigint NOT NULL,
    delete_after bigint NOT NULL,
    repeat_after bigint,
    attempts integer NOT NULL DEFAULT 0,
    last_error text COLLATE "C",
    CONSTRAINT pk_gc_objects PRIMARY KEY (location)
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_gc_objects_delete_after ON public.gc_objects USING btree (delete_after);

CREATE TABLE login_failures (
    subject text COLLATE "C" NOT NULL,
    failures integer NOT NULL,
    blocked_until bigint NOT NULL,
    expires_at bigint NOT NULL,
    CONSTRAINT pk_login_failures PRIMARY KEY (subject)
);

CREATE INDEX ix_login_failures_expires_at ON public.login_failures USING btree (expires_at);

CREATE TABLE manifest_references (
    repository_id bigint NOT NULL,
    manifest text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    CONSTRAINT pk_manifest_references PRIMARY KEY (repository_id, manifest, kind, target),
    CONSTRAINT ck_manifest_references_kind CHECK ((kind = ANY (ARRAY['blob'::text, 'manifest'::text]))),
    CONSTRAINT fk_manifest_references_repository_id_manifest_manifests FOREIGN KEY (repository_id, manifest) REFERENCES manifests(repository_id, digest) ON DELETE CASCADE
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_manifest_references_repository_id_kind_target ON public.manifest_references USING btree (repository_id, kind, target);

CREATE TABLE manifests (
    repository_id bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    media_type text COLLATE "C" NOT NULL,
    artifact_type text COLLATE "C",
    subject text COLLATE "C",
    config_digest text COLLATE "C",
    config_media_type text COLLATE "C",
    annotations text COLLATE "C",
    content_size bigint NOT NULL,
    payload bytea NOT NULL,
    author text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    review_at bigint,
    CONSTRAINT pk_manifests PRIMARY KEY (repository_id, digest),
    CONSTRAINT fk_manifests_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id)
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_manifests_review_at ON public.manifests USING btree (review_at, repository_id, digest) WHERE (review_at IS NOT NULL);

CREATE INDEX ix_manifests_subject ON public.manifests USING btree (repository_id, subject, digest) WHERE (subject IS NOT NULL);

CREATE INDEX ix_manifests_subject_artifact_type ON public.manifests USING btree (repository_id, subject, artifact_type, digest) WHERE ((subject IS NOT NULL) AND (artifact_type IS NOT NULL));

CREATE TABLE namespace_grants (
    namespace_id text COLLATE "C" NOT NULL,
    team_id text COLLATE "C" NOT NULL,
    level text COLLATE "C" NOT NULL,
    CONSTRAINT pk_namespace_grants PRIMARY KEY (namespace_id, team_id),
    CONSTRAINT ck_namespace_grants_level CHECK ((level = ANY (ARRAY['read-only'::text, 'read-write'::text, 'admin'::text]))),
    CONSTRAINT fk_namespace_grants_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_namespace_grants_team_id_teams FOREIGN KEY (team_id) REFERENCES teams(id) ON DELETE CASCADE
);

CREATE INDEX ix_namespace_grants_team_id ON public.namespace_grants USING btree (team_id);

CREATE TABLE organization_members (
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    is_admin boolean NOT NULL,
    CONSTRAINT pk_organization_members PRIMARY KEY (organization_id, user_id),
    CONSTRAINT fk_organization_members_organization_id_accounts FOREIGN KEY (organization_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_organization_members_user_id_accounts FOREIGN KEY (user_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_organization_members_user_id ON public.organization_members USING btree (user_id);

CREATE TABLE repositories (
    id bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    namespace_id text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    visibility text COLLATE "C" NOT NULL,
    short_description text COLLATE "C" NOT NULL DEFAULT ''::text,
    long_description text COLLATE "C" NOT NULL DEFAULT ''::text,
    scan_on_push boolean NOT NULL,
    immutable_tags boolean NOT NULL,
    tag_limit integer NOT NULL,
    created_at bigint NOT NULL,
    deleted_at bigint,
    CONSTRAINT pk_repositories PRIMARY KEY (id),
    CONSTRAINT ck_repositories_visibility CHECK ((visibility = ANY (ARRAY['public'::text, 'private'::text]))),
    CONSTRAINT fk_repositories_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id)
);

CREATE INDEX ix_repositories_deleted_at ON public.repositories USING btree (deleted_at) WHERE (deleted_at IS NOT NULL);

CREATE INDEX ix_repositories_namespace_id ON public.repositories USING btree (namespace_id);

CREATE UNIQUE INDEX uq_repositories_path ON public.repositories USING btree (path) WHERE (deleted_at IS NULL);

CREATE TABLE repository_blobs (
    repository_id bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    review_at bigint,
    CONSTRAINT pk_repository_blobs PRIMARY KEY (repository_id, digest),
    CONSTRAINT fk_repository_blobs_digest_blobs FOREIGN KEY (digest) REFERENCES blobs(digest),
    CONSTRAINT fk_repository_blobs_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id)
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_repository_blobs_digest ON public.repository_blobs USING btree (digest);

CREATE INDEX ix_repository_blobs_review_at ON public.repository_blobs USING btree (review_at, repository_id, digest) WHERE (review_at IS NOT NULL);

CREATE TABLE repository_grants (
    repository_id bigint NOT NULL,
    team_id text COLLATE "C" NOT NULL,
    level text COLLATE "C" NOT NULL,
    CONSTRAINT pk_repository_grants PRIMARY KEY (repository_id, team_id),
    CONSTRAINT ck_repository_grants_level CHECK ((level = ANY (ARRAY['read-only'::text, 'read-write'::text, 'admin'::text]))),
    CONSTRAINT fk_repository_grants_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE,
    CONSTRAINT fk_repository_grants_team_id_teams FOREIGN KEY (team_id) REFERENCES teams(id) ON DELETE CASCADE
);

CREATE INDEX ix_repository_grants_team_id ON public.repository_grants USING btree (team_id);

CREATE TABLE signing_keys (
    id text COLLATE "C" NOT NULL,
    private_key text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    signs_from bigint NOT NULL,
    expires_at bigint NOT NULL,
    CONSTRAINT pk_signing_keys PRIMARY KEY (id)
);

CREATE TABLE tags (
    repository_id bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    manifest text COLLATE "C" NOT NULL,
    author text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT pk_tags PRIMARY KEY (repository_id, name),
    CONSTRAINT fk_tags_repository_id_manifest_manifests FOREIGN KEY (repository_id, manifest) REFERENCES manifests(repository_id, digest) DEFERRABLE INITIALLY DEFERRED
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_tags_repository_id_created_at_name ON public.tags USING btree (repository_id, created_at, name);

CREATE INDEX ix_tags_repository_id_manifest ON public.tags USING btree (repository_id, manifest);

CREATE TABLE team_members (
    team_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    is_admin boolean NOT NULL,
    CONSTRAINT pk_team_members PRIMARY KEY (team_id, user_id),
    CONSTRAINT fk_team_members_team_id_teams FOREIGN KEY (team_id) REFERENCES teams(id) ON DELETE CASCADE,
    CONSTRAINT fk_team_members_user_id_accounts FOREIGN KEY (user_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_team_members_user_id ON public.team_members USING btree (user_id);

CREATE TABLE teams (
    id text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    description text COLLATE "C" NOT NULL DEFAULT ''::text,
    CONSTRAINT pk_teams PRIMARY KEY (id),
    CONSTRAINT uq_teams_organization_id_name UNIQUE (organization_id, name),
    CONSTRAINT fk_teams_organization_id_accounts FOREIGN KEY (organization_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE TABLE tokens (
    id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    label text COLLATE "C" NOT NULL,
    is_active boolean NOT NULL,
    created_at bigint NOT NULL,
    last_used_at bigint,
    expires_at bigint,
    generated_by text COLLATE "C" NOT NULL,
    creator_user_agent text COLLATE "C" NOT NULL DEFAULT ''::text,
    CONSTRAINT pk_tokens PRIMARY KEY (id),
    CONSTRAINT ck_tokens_kind CHECK ((kind = ANY (ARRAY['access'::text, 'refresh'::text]))),
    CONSTRAINT fk_tokens_account_id_accounts FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_tokens_account_id ON public.tokens USING btree (account_id);

CREATE TABLE uploads (
    id text COLLATE "C" NOT NULL,
    repository_id bigint NOT NULL,
    account_id text COLLATE "C",
    location text COLLATE "C" NOT NULL,
    driver_state text COLLATE "C" NOT NULL,
    "offset" bigint NOT NULL,
    algorithm text COLLATE "C" NOT NULL,
    digest text COLLATE "C",
    writer text COLLATE "C" NOT NULL DEFAULT ''::text,
    writer_until bigint NOT NULL DEFAULT '0'::bigint,
    started_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    CONSTRAINT pk_uploads PRIMARY KEY (id),
    CONSTRAINT uq_uploads_location UNIQUE (location),
    CONSTRAINT fk_uploads_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id)
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_uploads_expires_at ON public.uploads USING btree (expires_at);

CREATE INDEX ix_uploads_repository_id ON public.uploads USING btree (repository_id);

CREATE TABLE usage (
    scope text COLLATE "C" NOT NULL,
    bytes bigint NOT NULL,
    CONSTRAINT pk_usage PRIMARY KEY (scope)
);

CREATE TABLE usage_deltas (
    id bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    scope text COLLATE "C" NOT NULL,
    bytes bigint NOT NULL,
    CONSTRAINT pk_usage_deltas PRIMARY KEY (id)
) WITH (autovacuum_vacuum_scale_factor=0.02);
