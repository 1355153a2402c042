CREATE TABLE accounts (
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C",
    full_name text COLLATE "C" NOT NULL DEFAULT ''::text,
    folded text COLLATE "C" NOT NULL DEFAULT ''::text,
    is_admin boolean NOT NULL,
    is_auditor boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL,
    is_imported boolean NOT NULL,
    password_hash text COLLATE "C",
    password_is_own boolean NOT NULL DEFAULT false,
    created_at bigint NOT NULL,
    last_login_at bigint,
    CONSTRAINT pk_accounts PRIMARY KEY (id),
    CONSTRAINT uq_accounts_name UNIQUE (name),
    CONSTRAINT ck_accounts_kind CHECK ((kind = ANY (ARRAY['user'::text, 'organization'::text, 'robot'::text]))),
    CONSTRAINT fk_accounts_organization_id_accounts FOREIGN KEY (organization_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_accounts_administrators ON public.accounts USING btree (name) WHERE (is_admin IS TRUE);

CREATE INDEX ix_accounts_full_name_name ON public.accounts USING btree (full_name, name);

CREATE INDEX ix_accounts_organization_id ON public.accounts USING btree (organization_id);

CREATE INDEX ix_accounts_texts ON public.accounts USING gin (folded gin_trgm_ops);

CREATE TABLE action_configs (
    action text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    parameters text COLLATE "C" NOT NULL,
    CONSTRAINT pk_action_configs PRIMARY KEY (action)
);

CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE audit_positions (
    name text COLLATE "C" NOT NULL,
    location text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT pk_audit_positions PRIMARY KEY (name)
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

CREATE TABLE cached_repositories (
    repository_id bigint NOT NULL,
    upstream_id text COLLATE "C",
    remote_path text COLLATE "C" NOT NULL,
    CONSTRAINT pk_cached_repositories PRIMARY KEY (repository_id),
    CONSTRAINT fk_cached_repositories_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE,
    CONSTRAINT fk_cached_repositories_upstream_id_upstreams FOREIGN KEY (upstream_id) REFERENCES upstreams(id) ON DELETE SET NULL
);

CREATE INDEX ix_cached_repositories_upstream_id ON public.cached_repositories USING btree (upstream_id);

CREATE TABLE cached_tags (
    repository_id bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    checked_at bigint NOT NULL,
    CONSTRAINT pk_cached_tags PRIMARY KEY (repository_id, name),
    CONSTRAINT fk_cached_tags_repository_id_name_tags FOREIGN KEY (repository_id, name) REFERENCES tags(repository_id, name) ON DELETE CASCADE
);

CREATE TABLE crons (
    action text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    schedule text COLLATE "C" NOT NULL,
    next_run bigint NOT NULL,
    retries integer NOT NULL,
    capacity text COLLATE "C" NOT NULL DEFAULT '{}'::text,
    parameters text COLLATE "C" NOT NULL DEFAULT '{}'::text,
    deadline bigint NOT NULL DEFAULT '0'::bigint,
    stop_timeout bigint NOT NULL DEFAULT '0'::bigint,
    CONSTRAINT pk_crons PRIMARY KEY (action)
);

CREATE INDEX ix_crons_next_run ON public.crons USING btree (next_run);

CREATE TABLE enforcement_exceptions (
    id text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    author text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    CONSTRAINT pk_enforcement_exceptions PRIMARY KEY (id),
    CONSTRAINT ck_enforcement_exceptions_kind CHECK ((kind = ANY (ARRAY['tag'::text, 'digest'::text, 'account'::text]))),
    CONSTRAINT fk_enforcement_exceptions_scope_enforcement_policies FOREIGN KEY (scope) REFERENCES enforcement_policies(scope) ON DELETE CASCADE
);

CREATE INDEX ix_enforcement_exceptions_scope ON public.enforcement_exceptions USING btree (scope);

CREATE TABLE enforcement_policies (
    scope text COLLATE "C" NOT NULL,
    repository_id bigint,
    namespace_id text COLLATE "C",
    mode text COLLATE "C" NOT NULL,
    signers text COLLATE "C" NOT NULL,
    teams text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT pk_enforcement_policies PRIMARY KEY (scope),
    CONSTRAINT ck_enforcement_policies_mode CHECK ((mode = ANY (ARRAY['off'::text, 'report'::text, 'enforce'::text]))),
    CONSTRAINT ck_enforcement_policies_scope CHECK (((repository_id IS NULL) OR (namespace_id IS NULL))),
    CONSTRAINT fk_enforcement_policies_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_enforcement_policies_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_enforcement_policies_namespace_id ON public.enforcement_policies USING btree (namespace_id);

CREATE INDEX ix_enforcement_policies_repository_id ON public.enforcement_policies USING btree (repository_id);

CREATE TABLE event_cursors (
    name text COLLATE "C" NOT NULL,
    "position" bigint NOT NULL,
    holder text COLLATE "C" NOT NULL,
    held_until bigint NOT NULL,
    CONSTRAINT pk_event_cursors PRIMARY KEY (name)
);

CREATE TABLE events (
    id bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    published_at bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    actor text COLLATE "C" NOT NULL,
    actor_name text COLLATE "C" NOT NULL,
    actor_type text COLLATE "C" NOT NULL,
    address text COLLATE "C" NOT NULL,
    repository_id bigint,
    repository text COLLATE "C" NOT NULL,
    object_type text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    object_name text COLLATE "C" NOT NULL,
    object_content text COLLATE "C" NOT NULL,
    target_type text COLLATE "C",
    target_id text COLLATE "C",
    target_name text COLLATE "C",
    target_content text COLLATE "C",
    times bigint NOT NULL DEFAULT '1'::bigint,
    CONSTRAINT pk_events PRIMARY KEY (id)
);

CREATE INDEX ix_events_actor_id ON public.events USING btree (actor, id) WHERE (type <> 'GET'::text);

CREATE INDEX ix_events_actor_id_pulls ON public.events USING btree (actor, id) WHERE (type = 'GET'::text);

CREATE INDEX ix_events_address_id ON public.events USING btree (address, id) WHERE (type <> 'GET'::text);

CREATE INDEX ix_events_address_id_pulls ON public.events USING btree (address, id) WHERE (type = 'GET'::text);

CREATE INDEX ix_events_id ON public.events USING btree (id) WHERE (type <> 'GET'::text);

CREATE INDEX ix_events_object_type_type_id ON public.events USING btree (object_type, type, id) WHERE (type <> 'GET'::text);

CREATE INDEX ix_events_published_at ON public.events USING btree (published_at);

CREATE INDEX ix_events_repository_id_id ON public.events USING btree (repository_id, id) WHERE (type <> 'GET'::text);

CREATE INDEX ix_events_repository_id_id_pulls ON public.events USING btree (repository_id, id) WHERE (type = 'GET'::text);

CREATE INDEX ix_events_tag ON public.events USING btree (repository_id, object_name, id) WHERE ((object_type = 'tag'::text) AND (type <> 'GET'::text));

CREATE TABLE fetches (
    repository_id bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    upload_id text COLLATE "C" NOT NULL,
    CONSTRAINT pk_fetches PRIMARY KEY (repository_id, digest),
    CONSTRAINT fk_fetches_upload_id_uploads FOREIGN KEY (upload_id) REFERENCES uploads(id) ON DELETE CASCADE
);

CREATE INDEX ix_fetches_upload_id ON public.fetches USING btree (upload_id);

CREATE TABLE gc_objects (
    location text COLLATE "C" NOT NULL,
    driver_state text COLLATE "C",
    size bigint NOT NULL,
    delete_after bigint NOT NULL,
    repeat_after bigint,
    attempts integer NOT NULL DEFAULT 0,
    last_error text COLLATE "C",
    damage text COLLATE "C",
    CONSTRAINT pk_gc_objects PRIMARY KEY (location)
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_gc_objects_attempts ON public.gc_objects USING btree (attempts) WHERE (attempts >= 10);

CREATE INDEX ix_gc_objects_delete_after ON public.gc_objects USING btree (delete_after);

CREATE TABLE image_configs (
    digest text COLLATE "C" NOT NULL,
    os text COLLATE "C" NOT NULL,
    os_version text COLLATE "C" NOT NULL,
    architecture text COLLATE "C" NOT NULL,
    variant text COLLATE "C" NOT NULL,
    history text COLLATE "C" NOT NULL,
    labels text COLLATE "C" NOT NULL,
    runtime text COLLATE "C" NOT NULL DEFAULT '{}'::text,
    CONSTRAINT pk_image_configs PRIMARY KEY (digest),
    CONSTRAINT fk_image_configs_digest_blobs FOREIGN KEY (digest) REFERENCES blobs(digest) ON DELETE CASCADE
);

CREATE TABLE job_logs (
    job text COLLATE "C" NOT NULL,
    line integer NOT NULL,
    data text COLLATE "C" NOT NULL,
    level text COLLATE "C" NOT NULL DEFAULT 'info'::text,
    CONSTRAINT pk_job_logs PRIMARY KEY (job, line),
    CONSTRAINT ck_job_logs_level CHECK ((level = ANY (ARRAY['info'::text, 'warning'::text, 'error'::text]))),
    CONSTRAINT fk_job_logs_job_jobs FOREIGN KEY (job) REFERENCES jobs(id) ON DELETE CASCADE
);

CREATE INDEX ix_job_logs_trouble ON public.job_logs USING btree (job, level, line) WHERE (level <> 'info'::text);

CREATE TABLE jobs (
    id text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    worker text COLLATE "C" NOT NULL DEFAULT ''::text,
    session text COLLATE "C" NOT NULL DEFAULT ''::text,
    scheduled_at bigint NOT NULL,
    started_at bigint,
    updated_at bigint NOT NULL,
    cause text COLLATE "C" NOT NULL DEFAULT 'event'::text,
    caused_by text COLLATE "C" NOT NULL DEFAULT ''::text,
    retries_left integer NOT NULL,
    retries_total integer NOT NULL,
    retry_from text COLLATE "C" NOT NULL DEFAULT ''::text,
    capacity text COLLATE "C" NOT NULL DEFAULT '{}'::text,
    parameters text COLLATE "C" NOT NULL DEFAULT '{}'::text,
    deadline bigint NOT NULL DEFAULT '0'::bigint,
    stop_timeout bigint NOT NULL DEFAULT '0'::bigint,
    done bigint,
    total bigint,
    unit text COLLATE "C" NOT NULL DEFAULT ''::text,
    result text COLLATE "C" NOT NULL DEFAULT '{}'::text,
    unique_key text COLLATE "C",
    ended_at bigint,
    deaths integer NOT NULL DEFAULT 0,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT ck_jobs_cause CHECK ((cause = ANY (ARRAY['account'::text, 'command'::text, 'schedule'::text, 'retry'::text, 'event'::text])))
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_jobs_action ON public.jobs USING btree (action, scheduled_at);

CREATE INDEX ix_jobs_ended ON public.jobs USING btree (status, scheduled_at, id) WHERE (ended_at IS NOT NULL);

CREATE INDEX ix_jobs_open ON public.jobs USING btree (scheduled_at, id) WHERE (ended_at IS NULL);

CREATE INDEX ix_jobs_retry_from ON public.jobs USING btree (retry_from) WHERE (retry_from <> ''::text);

CREATE INDEX ix_jobs_scheduled_at ON public.jobs USING btree (scheduled_at, id);

CREATE UNIQUE INDEX uq_jobs_unique_key ON public.jobs USING btree (unique_key) WHERE (unique_key IS NOT NULL);

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
    platforms integer NOT NULL DEFAULT 0,
    payload bytea NOT NULL,
    author text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    review_at bigint,
    CONSTRAINT pk_manifests PRIMARY KEY (repository_id, digest),
    CONSTRAINT fk_manifests_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id)
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_manifests_digest_repository_id ON public.manifests USING btree (digest, repository_id);

CREATE INDEX ix_manifests_review_at ON public.manifests USING btree (review_at, repository_id, digest) WHERE (review_at IS NOT NULL);

CREATE INDEX ix_manifests_subject ON public.manifests USING btree (repository_id, subject, digest) WHERE (subject IS NOT NULL);

CREATE INDEX ix_manifests_subject_artifact_type ON public.manifests USING btree (repository_id, subject, artifact_type, digest) WHERE ((subject IS NOT NULL) AND (artifact_type IS NOT NULL));

CREATE TABLE mirrored_tags (
    repository_id bigint NOT NULL,
    policy_id text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    direction text COLLATE "C" NOT NULL,
    target_tag text COLLATE "C" NOT NULL,
    remote text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    detail text COLLATE "C" NOT NULL,
    attempted_at bigint NOT NULL,
    mirrored_at bigint,
    CONSTRAINT pk_mirrored_tags PRIMARY KEY (repository_id, policy_id, tag),
    CONSTRAINT ck_mirrored_tags_status CHECK ((status = ANY (ARRAY['mirrored'::text, 'failed'::text, 'waiting'::text, 'skipped'::text]))),
    CONSTRAINT fk_mirrored_tags_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_mirrored_tags_repository_id_digest ON public.mirrored_tags USING btree (repository_id, digest);

CREATE INDEX ix_mirrored_tags_repository_id_tag ON public.mirrored_tags USING btree (repository_id, tag);

CREATE INDEX ix_mirrored_tags_repository_id_target_tag ON public.mirrored_tags USING btree (repository_id, target_tag);

CREATE TABLE mirroring_policies (
    id text COLLATE "C" NOT NULL,
    repository_id bigint NOT NULL,
    direction text COLLATE "C" NOT NULL,
    remote_id text COLLATE "C" NOT NULL,
    remote_repository text COLLATE "C" NOT NULL,
    enabled boolean NOT NULL,
    rules text COLLATE "C" NOT NULL,
    tag_template text COLLATE "C" NOT NULL,
    with_referrers boolean NOT NULL,
    with_deletions boolean NOT NULL,
    schedule text COLLATE "C" NOT NULL,
    next_run bigint,
    skips_present boolean NOT NULL,
    created_at bigint NOT NULL,
    last_mirrored_at bigint,
    status_code text COLLATE "C" NOT NULL DEFAULT ''::text,
    status_detail text COLLATE "C" NOT NULL DEFAULT ''::text,
    status_at bigint,
    last_job text COLLATE "C" NOT NULL DEFAULT ''::text,
    CONSTRAINT pk_mirroring_policies PRIMARY KEY (id),
    CONSTRAINT ck_mirroring_policies_direction CHECK ((direction = ANY (ARRAY['push'::text, 'poll'::text]))),
    CONSTRAINT fk_mirroring_policies_remote_id_remotes FOREIGN KEY (remote_id) REFERENCES remotes(id) ON DELETE CASCADE,
    CONSTRAINT fk_mirroring_policies_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_mirroring_policies_next_run ON public.mirroring_policies USING btree (next_run) WHERE (next_run IS NOT NULL);

CREATE INDEX ix_mirroring_policies_remote_id ON public.mirroring_policies USING btree (remote_id);

CREATE INDEX ix_mirroring_policies_repository_id ON public.mirroring_policies USING btree (repository_id);

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

CREATE TABLE namespace_storages (
    namespace_id text COLLATE "C" NOT NULL,
    storage text COLLATE "C" NOT NULL,
    CONSTRAINT pk_namespace_storages PRIMARY KEY (namespace_id),
    CONSTRAINT fk_namespace_storages_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_namespace_storages_storage_storages FOREIGN KEY (storage) REFERENCES storages(name)
);

CREATE INDEX ix_namespace_storages_storage ON public.namespace_storages USING btree (storage);

CREATE TABLE namespace_user_grants (
    namespace_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    level text COLLATE "C" NOT NULL,
    CONSTRAINT pk_namespace_user_grants PRIMARY KEY (namespace_id, user_id),
    CONSTRAINT ck_namespace_user_grants_level CHECK ((level = ANY (ARRAY['read-only'::text, 'read-write'::text, 'admin'::text]))),
    CONSTRAINT fk_namespace_user_grants_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_namespace_user_grants_user_id_accounts FOREIGN KEY (user_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_namespace_user_grants_user_id ON public.namespace_user_grants USING btree (user_id);

CREATE TABLE organization_members (
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    is_admin boolean NOT NULL,
    CONSTRAINT pk_organization_members PRIMARY KEY (organization_id, user_id),
    CONSTRAINT fk_organization_members_organization_id_accounts FOREIGN KEY (organization_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_organization_members_user_id_accounts FOREIGN KEY (user_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_organization_members_owners ON public.organization_members USING btree (organization_id, user_id) WHERE (is_admin IS TRUE);

CREATE INDEX ix_organization_members_user_id ON public.organization_members USING btree (user_id);

CREATE TABLE pinned_repositories (
    account_id text COLLATE "C" NOT NULL,
    repository_id bigint NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT pk_pinned_repositories PRIMARY KEY (account_id, repository_id),
    CONSTRAINT fk_pinned_repositories_account_id_accounts FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_pinned_repositories_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_pinned_repositories_repository_id ON public.pinned_repositories USING btree (repository_id);

CREATE TABLE policy_tags (
    policy_id text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    repository_id bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    moment bigint NOT NULL,
    chain text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    waits_for text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT pk_policy_tags PRIMARY KEY (policy_id, tag),
    CONSTRAINT ck_policy_tags_state CHECK ((state = ANY (ARRAY['done'::text, 'waits'::text]))),
    CONSTRAINT fk_policy_tags_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_policy_tags_repository_id_digest ON public.policy_tags USING btree (repository_id, digest);

CREATE INDEX ix_policy_tags_waiting ON public.policy_tags USING btree (policy_id, tag) WHERE (state = 'waits'::text);

CREATE TABLE promotion_policies (
    id text COLLATE "C" NOT NULL,
    source_id bigint NOT NULL,
    target_id bigint NOT NULL,
    enabled boolean NOT NULL,
    rules text COLLATE "C" NOT NULL,
    tag_template text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    last_promoted_at bigint,
    last_failed_at bigint,
    last_failure text COLLATE "C" NOT NULL DEFAULT ''::text,
    last_job text COLLATE "C" NOT NULL DEFAULT ''::text,
    CONSTRAINT pk_promotion_policies PRIMARY KEY (id),
    CONSTRAINT fk_promotion_policies_source_id_repositories FOREIGN KEY (source_id) REFERENCES repositories(id) ON DELETE CASCADE,
    CONSTRAINT fk_promotion_policies_target_id_repositories FOREIGN KEY (target_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_promotion_policies_source_id ON public.promotion_policies USING btree (source_id);

CREATE INDEX ix_promotion_policies_target_id ON public.promotion_policies USING btree (target_id);

CREATE TABLE pruning_policies (
    id text COLLATE "C" NOT NULL,
    repository_id bigint NOT NULL,
    enabled boolean NOT NULL,
    rules text COLLATE "C" NOT NULL,
    keep integer NOT NULL,
    since bigint NOT NULL,
    created_at bigint NOT NULL,
    last_pruned_at bigint,
    waiting integer NOT NULL DEFAULT 0,
    deleted integer NOT NULL DEFAULT 0,
    newest integer NOT NULL DEFAULT 0,
    signed integer NOT NULL DEFAULT 0,
    protected integer NOT NULL DEFAULT 0,
    last_job text COLLATE "C" NOT NULL DEFAULT ''::text,
    CONSTRAINT pk_pruning_policies PRIMARY KEY (id),
    CONSTRAINT fk_pruning_policies_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_pruning_policies_repository_id ON public.pruning_policies USING btree (repository_id);

CREATE TABLE public_keys (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    public_key text COLLATE "C" NOT NULL,
    label text COLLATE "C" NOT NULL DEFAULT ''::text,
    certificates text COLLATE "C" NOT NULL DEFAULT '[]'::text,
    created_at bigint NOT NULL,
    CONSTRAINT pk_public_keys PRIMARY KEY (account_id, id),
    CONSTRAINT fk_public_keys_account_id_accounts FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_public_keys_id_account_id ON public.public_keys USING btree (id, account_id);

CREATE TABLE pulls (
    repository_id bigint NOT NULL,
    reference text COLLATE "C" NOT NULL,
    pulls bigint NOT NULL,
    last_pulled_at bigint NOT NULL,
    CONSTRAINT pk_pulls PRIMARY KEY (repository_id, reference),
    CONSTRAINT fk_pulls_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE TABLE remotes (
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C",
    repository_id bigint,
    namespace_id text COLLATE "C",
    host text COLLATE "C" NOT NULL,
    username text COLLATE "C" NOT NULL,
    password text COLLATE "C",
    token text COLLATE "C",
    ca text COLLATE "C" NOT NULL,
    skip_tls_verification boolean NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT pk_remotes PRIMARY KEY (id),
    CONSTRAINT uq_remotes_namespace_id_name UNIQUE (namespace_id, name),
    CONSTRAINT ck_remotes_shared CHECK (((namespace_id IS NULL) OR (name IS NOT NULL))),
    CONSTRAINT ck_remotes_single CHECK (((name IS NULL) = (repository_id IS NOT NULL))),
    CONSTRAINT fk_remotes_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_remotes_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_remotes_repository_id ON public.remotes USING btree (repository_id);

CREATE UNIQUE INDEX uq_remotes_name ON public.remotes USING btree (name) WHERE (namespace_id IS NULL);

CREATE TABLE replicas (
    id text COLLATE "C" NOT NULL,
    node text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    components text COLLATE "C" NOT NULL,
    http_port integer,
    https_port integer,
    started_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    CONSTRAINT pk_replicas PRIMARY KEY (id)
);

CREATE TABLE repositories (
    id bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    namespace_id text COLLATE "C",
    path text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL GENERATED ALWAYS AS (substr(path, (strpos(path, '/'::text) + 1))) STORED,
    visibility text COLLATE "C" NOT NULL,
    short_description text COLLATE "C" NOT NULL DEFAULT ''::text,
    long_description text COLLATE "C" NOT NULL DEFAULT ''::text,
    folded text COLLATE "C" NOT NULL DEFAULT ''::text,
    scan_on_push boolean NOT NULL,
    immutable_tags boolean NOT NULL,
    immutable_patterns text COLLATE "C" NOT NULL DEFAULT '[]'::text,
    tag_limit integer NOT NULL,
    has_policies boolean NOT NULL DEFAULT false,
    created_at bigint NOT NULL,
    deleted_at bigint,
    CONSTRAINT pk_repositories PRIMARY KEY (id),
    CONSTRAINT ck_repositories_owned CHECK (((namespace_id IS NOT NULL) OR (deleted_at IS NOT NULL))),
    CONSTRAINT ck_repositories_visibility CHECK ((visibility = ANY (ARRAY['public'::text, 'private'::text]))),
    CONSTRAINT fk_repositories_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE SET NULL
);

CREATE INDEX ix_repositories_deleted_at ON public.repositories USING btree (deleted_at) WHERE (deleted_at IS NOT NULL);

CREATE INDEX ix_repositories_namespace_id ON public.repositories USING btree (namespace_id);

CREATE INDEX ix_repositories_namespace_id_visibility_path_name ON public.repositories USING btree (namespace_id, visibility, path, name, deleted_at) INCLUDE (id) WHERE (deleted_at IS NULL);

CREATE INDEX ix_repositories_texts_private ON public.repositories USING gin (path gin_trgm_ops, folded gin_trgm_ops) WHERE ((deleted_at IS NULL) AND (visibility = 'private'::text));

CREATE INDEX ix_repositories_texts_public ON public.repositories USING gin (path gin_trgm_ops, folded gin_trgm_ops) WHERE ((deleted_at IS NULL) AND (visibility = 'public'::text));

CREATE INDEX ix_repositories_visibility ON public.repositories USING btree (visibility, deleted_at) WHERE (deleted_at IS NULL);

CREATE INDEX ix_repositories_visibility_name_path ON public.repositories USING btree (visibility, name, path, deleted_at) INCLUDE (id) WHERE (deleted_at IS NULL);

CREATE INDEX ix_repositories_visibility_path ON public.repositories USING btree (visibility, path, deleted_at) INCLUDE (id) WHERE (deleted_at IS NULL);

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

CREATE TABLE repository_redirects (
    path text COLLATE "C" NOT NULL,
    repository_id bigint NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT pk_repository_redirects PRIMARY KEY (path),
    CONSTRAINT fk_repository_redirects_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_repository_redirects_repository_id ON public.repository_redirects USING btree (repository_id);

CREATE TABLE repository_summaries (
    repository_id bigint NOT NULL,
    namespace_id text COLLATE "C" NOT NULL,
    visibility text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    latest_tag text COLLATE "C" NOT NULL DEFAULT ''::text,
    kind text COLLATE "C" NOT NULL DEFAULT ''::text,
    is_signed boolean NOT NULL DEFAULT false,
    bytes bigint NOT NULL DEFAULT '0'::bigint,
    pulls bigint NOT NULL DEFAULT '0'::bigint,
    pushed_at bigint NOT NULL DEFAULT '0'::bigint,
    CONSTRAINT pk_repository_summaries PRIMARY KEY (repository_id),
    CONSTRAINT fk_repository_summaries_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_repository_summaries_namespace_id_visibility_repository_id ON public.repository_summaries USING btree (namespace_id, visibility, repository_id);

CREATE INDEX ix_repository_summaries_pushed_at ON public.repository_summaries USING btree (pushed_at DESC, path, visibility, namespace_id) INCLUDE (repository_id);

CREATE TABLE repository_user_grants (
    repository_id bigint NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    level text COLLATE "C" NOT NULL,
    CONSTRAINT pk_repository_user_grants PRIMARY KEY (repository_id, user_id),
    CONSTRAINT ck_repository_user_grants_level CHECK ((level = ANY (ARRAY['read-only'::text, 'read-write'::text, 'admin'::text]))),
    CONSTRAINT fk_repository_user_grants_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE,
    CONSTRAINT fk_repository_user_grants_user_id_accounts FOREIGN KEY (user_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_repository_user_grants_user_id ON public.repository_user_grants USING btree (user_id);

CREATE TABLE revisions (
    name text COLLATE "C" NOT NULL,
    value bigint NOT NULL,
    CONSTRAINT pk_revisions PRIMARY KEY (name)
);

CREATE TABLE sessions (
    id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    last_used_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    address text COLLATE "C" NOT NULL DEFAULT ''::text,
    user_agent text COLLATE "C" NOT NULL DEFAULT ''::text,
    CONSTRAINT pk_sessions PRIMARY KEY (id),
    CONSTRAINT fk_sessions_account_id_accounts FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_sessions_account_id ON public.sessions USING btree (account_id);

CREATE INDEX ix_sessions_expires_at ON public.sessions USING btree (expires_at);

CREATE TABLE settings (
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT pk_settings PRIMARY KEY (name)
);

CREATE TABLE shared_keys (
    name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    CONSTRAINT pk_shared_keys PRIMARY KEY (name)
);

CREATE TABLE signature_proofs (
    repository_id bigint NOT NULL,
    subject text COLLATE "C" NOT NULL,
    manifest text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    identity_id text COLLATE "C" NOT NULL,
    valid_until bigint,
    CONSTRAINT pk_signature_proofs PRIMARY KEY (repository_id, subject, manifest, number, identity_id),
    CONSTRAINT fk_signature_proofs_identity_id_signing_identities FOREIGN KEY (identity_id) REFERENCES signing_identities(id) ON DELETE CASCADE,
    CONSTRAINT fk_signature_proofs_repository_id_subject_manifest_numb_c86b FOREIGN KEY (repository_id, subject, manifest, number) REFERENCES signatures(repository_id, subject, manifest, number) ON DELETE CASCADE
);

CREATE INDEX ix_signature_proofs_identity_id ON public.signature_proofs USING btree (identity_id);

CREATE TABLE signatures (
    repository_id bigint NOT NULL,
    subject text COLLATE "C" NOT NULL,
    manifest text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    tag text COLLATE "C",
    kind text COLLATE "C" NOT NULL,
    format text COLLATE "C" NOT NULL,
    predicate_type text COLLATE "C" NOT NULL,
    signer text COLLATE "C" NOT NULL,
    signed_at bigint,
    problem text COLLATE "C" NOT NULL,
    objection text COLLATE "C" NOT NULL,
    checked_at bigint NOT NULL,
    CONSTRAINT pk_signatures PRIMARY KEY (repository_id, subject, manifest, number),
    CONSTRAINT ck_signatures_kind CHECK ((kind = ANY (ARRAY['signature'::text, 'attestation'::text]))),
    CONSTRAINT fk_signatures_repository_id_manifest_manifests FOREIGN KEY (repository_id, manifest) REFERENCES manifests(repository_id, digest) ON DELETE CASCADE
);

CREATE INDEX ix_signatures_repository_id_manifest ON public.signatures USING btree (repository_id, manifest);

CREATE TABLE signer_keys (
    key_id text COLLATE "C" NOT NULL,
    gun text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    algorithm text COLLATE "C" NOT NULL,
    public bytea NOT NULL,
    private text COLLATE "C" NOT NULL,
    alias text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    last_used_at bigint,
    CONSTRAINT pk_signer_keys PRIMARY KEY (key_id)
);

CREATE INDEX ix_signer_keys_alias ON public.signer_keys USING btree (alias);

CREATE UNIQUE INDEX uq_signer_keys_pending ON public.signer_keys USING btree (gun, role, algorithm) WHERE (last_used_at IS NULL);

CREATE TABLE signing_identities (
    id text COLLATE "C" NOT NULL,
    namespace_id text COLLATE "C",
    name text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    content text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT pk_signing_identities PRIMARY KEY (id),
    CONSTRAINT uq_signing_identities_namespace_id_name UNIQUE (namespace_id, name),
    CONSTRAINT ck_signing_identities_kind CHECK ((kind = ANY (ARRAY['key'::text, 'certificate'::text, 'keyless'::text]))),
    CONSTRAINT fk_signing_identities_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX uq_signing_identities_name ON public.signing_identities USING btree (name) WHERE (namespace_id IS NULL);

CREATE TABLE signing_keys (
    id text COLLATE "C" NOT NULL,
    private_key text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    signs_from bigint NOT NULL,
    expires_at bigint NOT NULL,
    CONSTRAINT pk_signing_keys PRIMARY KEY (id)
);

CREATE TABLE storages (
    name text COLLATE "C" NOT NULL,
    driver text COLLATE "C" NOT NULL,
    parameters text COLLATE "C",
    secrets text COLLATE "C",
    place text COLLATE "C" NOT NULL,
    redirect_seconds integer,
    redirect_except text COLLATE "C" NOT NULL,
    is_default boolean NOT NULL,
    used_until bigint NOT NULL,
    created_at bigint NOT NULL,
    changed_at bigint NOT NULL,
    CONSTRAINT pk_storages PRIMARY KEY (name),
    CONSTRAINT ck_storages_described CHECK (((secrets IS NULL) OR (parameters IS NOT NULL)))
);

CREATE TABLE tag_origins (
    repository_id bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    manifest text COLLATE "C" NOT NULL,
    moved_at bigint NOT NULL,
    source_repository text COLLATE "C" NOT NULL,
    source_tag text COLLATE "C" NOT NULL,
    policy_id text COLLATE "C" NOT NULL,
    CONSTRAINT pk_tag_origins PRIMARY KEY (repository_id, name),
    CONSTRAINT fk_tag_origins_repository_id_name_tags FOREIGN KEY (repository_id, name) REFERENCES tags(repository_id, name) ON DELETE CASCADE
);

CREATE TABLE tags (
    repository_id bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    manifest text COLLATE "C" NOT NULL,
    author text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    version_key text COLLATE "C" NOT NULL DEFAULT ''::text,
    CONSTRAINT pk_tags PRIMARY KEY (repository_id, name),
    CONSTRAINT fk_tags_repository_id_manifest_manifests FOREIGN KEY (repository_id, manifest) REFERENCES manifests(repository_id, digest) DEFERRABLE INITIALLY DEFERRED
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_tags_repository_id_created_at_name ON public.tags USING btree (repository_id, created_at, name);

CREATE INDEX ix_tags_repository_id_manifest_version_key ON public.tags USING btree (repository_id, manifest, version_key);

CREATE INDEX ix_tags_repository_id_updated_at_name ON public.tags USING btree (repository_id, updated_at, name);

CREATE INDEX ix_tags_repository_id_version_key_name ON public.tags USING btree (repository_id, version_key, name);

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
    parent_id text COLLATE "C",
    kind text COLLATE "C" NOT NULL,
    label text COLLATE "C" NOT NULL,
    is_active boolean NOT NULL,
    created_at bigint NOT NULL,
    last_used_at bigint,
    last_used_address text COLLATE "C" NOT NULL DEFAULT ''::text,
    expires_at bigint,
    creator_user_agent text COLLATE "C" NOT NULL DEFAULT ''::text,
    scope text COLLATE "C",
    CONSTRAINT pk_tokens PRIMARY KEY (id),
    CONSTRAINT ck_tokens_kind CHECK ((kind = ANY (ARRAY['access'::text, 'refresh'::text]))),
    CONSTRAINT fk_tokens_account_id_accounts FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_tokens_parent_id_tokens FOREIGN KEY (parent_id) REFERENCES tokens(id) ON DELETE CASCADE
);

CREATE INDEX ix_tokens_account_id_id ON public.tokens USING btree (account_id, id);

CREATE INDEX ix_tokens_expires_at ON public.tokens USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX ix_tokens_inactive ON public.tokens USING btree (created_at) WHERE (is_active IS FALSE);

CREATE INDEX ix_tokens_parent_id ON public.tokens USING btree (parent_id);

CREATE TABLE trust_changes (
    id bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    repository_id bigint NOT NULL,
    gun text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    sha256 text COLLATE "C" NOT NULL,
    category text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT pk_trust_changes PRIMARY KEY (id),
    CONSTRAINT ck_trust_changes_category CHECK ((category = ANY (ARRAY['update'::text, 'deletion'::text])))
);

CREATE INDEX ix_trust_changes_repository_id_gun_id ON public.trust_changes USING btree (repository_id, gun, id);

CREATE TABLE trust_delegations (
    repository_id bigint NOT NULL,
    gun text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    public_key_id text COLLATE "C" NOT NULL,
    has_signed boolean NOT NULL,
    CONSTRAINT pk_trust_delegations PRIMARY KEY (repository_id, gun, role, key_id),
    CONSTRAINT fk_trust_delegations_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_trust_delegations_key_id ON public.trust_delegations USING btree (key_id);

CREATE TABLE trust_files (
    repository_id bigint NOT NULL,
    gun text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    sha256 text COLLATE "C" NOT NULL,
    content bytea NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT pk_trust_files PRIMARY KEY (repository_id, gun, role, version),
    CONSTRAINT fk_trust_files_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_trust_files_repository_id_gun_sha256 ON public.trust_files USING btree (repository_id, gun, sha256);

CREATE TABLE trust_roles (
    repository_id bigint NOT NULL,
    gun text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    expires_at bigint NOT NULL,
    CONSTRAINT pk_trust_roles PRIMARY KEY (repository_id, gun, role),
    CONSTRAINT fk_trust_roles_version_trust_files FOREIGN KEY (repository_id, gun, role, version) REFERENCES trust_files(repository_id, gun, role, version) ON DELETE CASCADE
);

CREATE TABLE trust_targets (
    repository_id bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    gun text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    length bigint NOT NULL,
    signed_at bigint NOT NULL,
    forgotten_at bigint,
    CONSTRAINT pk_trust_targets PRIMARY KEY (repository_id, name, gun, role),
    CONSTRAINT fk_trust_targets_role_trust_roles FOREIGN KEY (repository_id, gun, role) REFERENCES trust_roles(repository_id, gun, role) ON DELETE CASCADE
);

CREATE INDEX ix_trust_targets_repository_id_digest_forgotten_at ON public.trust_targets USING btree (repository_id, digest, forgotten_at);

CREATE INDEX ix_trust_targets_repository_id_gun_role ON public.trust_targets USING btree (repository_id, gun, role);

CREATE TABLE uploads (
    id text COLLATE "C" NOT NULL,
    repository_id bigint NOT NULL,
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

CREATE TABLE upstreams (
    id text COLLATE "C" NOT NULL,
    repository_id bigint,
    namespace_id text COLLATE "C",
    remote_id text COLLATE "C" NOT NULL,
    remote_path text COLLATE "C" NOT NULL,
    tag_patterns text COLLATE "C" NOT NULL,
    visibility text COLLATE "C" NOT NULL,
    max_age bigint NOT NULL,
    keep_for bigint,
    created_at bigint NOT NULL,
    CONSTRAINT pk_upstreams PRIMARY KEY (id),
    CONSTRAINT uq_upstreams_namespace_id UNIQUE (namespace_id),
    CONSTRAINT uq_upstreams_repository_id UNIQUE (repository_id),
    CONSTRAINT ck_upstreams_scope CHECK (((repository_id IS NULL) <> (namespace_id IS NULL))),
    CONSTRAINT ck_upstreams_visibility CHECK ((visibility = ANY (ARRAY['public'::text, 'private'::text]))),
    CONSTRAINT fk_upstreams_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE CASCADE,
    CONSTRAINT fk_upstreams_remote_id_remotes FOREIGN KEY (remote_id) REFERENCES remotes(id) ON DELETE CASCADE,
    CONSTRAINT fk_upstreams_repository_id_repositories FOREIGN KEY (repository_id) REFERENCES repositories(id) ON DELETE CASCADE
);

CREATE INDEX ix_upstreams_remote_id ON public.upstreams USING btree (remote_id);

CREATE TABLE usage (
    scope text COLLATE "C" NOT NULL,
    bytes bigint NOT NULL,
    pulls bigint NOT NULL DEFAULT '0'::bigint,
    pushes bigint NOT NULL DEFAULT '0'::bigint,
    pulled_at bigint,
    pushed_at bigint,
    CONSTRAINT pk_usage PRIMARY KEY (scope)
);

CREATE TABLE usage_days (
    scope text COLLATE "C" NOT NULL,
    day bigint NOT NULL,
    bytes bigint NOT NULL,
    pulls bigint NOT NULL,
    pushes bigint NOT NULL,
    CONSTRAINT pk_usage_days PRIMARY KEY (scope, day)
);

CREATE INDEX ix_usage_days_day ON public.usage_days USING btree (day);

CREATE TABLE usage_deltas (
    id bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    scope text COLLATE "C" NOT NULL,
    bytes bigint NOT NULL DEFAULT '0'::bigint,
    pulls bigint NOT NULL DEFAULT '0'::bigint,
    pushes bigint NOT NULL DEFAULT '0'::bigint,
    pulled_at bigint,
    pushed_at bigint,
    CONSTRAINT pk_usage_deltas PRIMARY KEY (id)
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE INDEX ix_usage_deltas_scope ON public.usage_deltas USING btree (scope);

CREATE TABLE used_upload_ids (
    id text COLLATE "C" NOT NULL,
    CONSTRAINT pk_used_upload_ids PRIMARY KEY (id)
) WITH (autovacuum_vacuum_scale_factor=0.02);

CREATE TABLE user_settings (
    account_id text COLLATE "C" NOT NULL,
    language text COLLATE "C",
    content_cache text COLLATE "C",
    CONSTRAINT pk_user_settings PRIMARY KEY (account_id),
    CONSTRAINT fk_user_settings_account_id_accounts FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE TABLE webhook_deliveries (
    id text COLLATE "C" NOT NULL,
    webhook_id text COLLATE "C" NOT NULL,
    event_id bigint,
    repeats text COLLATE "C" NOT NULL DEFAULT ''::text,
    body text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    attempted_at bigint,
    status_code integer,
    answer text COLLATE "C" NOT NULL DEFAULT ''::text,
    error text COLLATE "C" NOT NULL DEFAULT ''::text,
    duration integer,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id),
    CONSTRAINT uq_webhook_deliveries_webhook_id_event_id UNIQUE (webhook_id, event_id),
    CONSTRAINT ck_webhook_deliveries_status CHECK ((status = ANY (ARRAY['waiting'::text, 'delivered'::text, 'failed'::text]))),
    CONSTRAINT fk_webhook_deliveries_webhook_id_webhooks FOREIGN KEY (webhook_id) REFERENCES webhooks(id) ON DELETE CASCADE
);

CREATE INDEX ix_webhook_deliveries_created_at ON public.webhook_deliveries USING btree (created_at);

CREATE INDEX ix_webhook_deliveries_webhook_id_created_at ON public.webhook_deliveries USING btree (webhook_id, created_at, id);

CREATE TABLE webhooks (
    id text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    repository_id bigint,
    namespace_id text COLLATE "C",
    author_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    format text COLLATE "C" NOT NULL,
    tls_cert text COLLATE "C" NOT NULL,
    skip_tls_verification boolean NOT NULL,
    secret text COLLATE "C",
    is_active boolean NOT NULL,
    created_at bigint NOT NULL,
    deleted_at bigint,
    last_successful_at bigint,
    failing_since bigint,
    last_error text COLLATE "C" NOT NULL DEFAULT ''::text,
    CONSTRAINT pk_webhooks PRIMARY KEY (id),
    CONSTRAINT ck_webhooks_format CHECK ((format = ANY (ARRAY['dtr'::text, 'cloudevents'::text]))),
    CONSTRAINT ck_webhooks_scope CHECK (((repository_id IS NULL) OR (namespace_id IS NULL))),
    CONSTRAINT fk_webhooks_namespace_id_accounts FOREIGN KEY (namespace_id) REFERENCES accounts(id) ON DELETE CASCADE
);

CREATE INDEX ix_webhooks_author_id ON public.webhooks USING btree (author_id);

CREATE INDEX ix_webhooks_namespace_id ON public.webhooks USING btree (namespace_id);

CREATE INDEX ix_webhooks_repository_id ON public.webhooks USING btree (repository_id);

CREATE INDEX ix_webhooks_type_active ON public.webhooks USING btree (type) WHERE (is_active IS TRUE);

CREATE TABLE workers (
    id text COLLATE "C" NOT NULL,
    node text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    capacity text COLLATE "C" NOT NULL DEFAULT '{}'::text,
    session text COLLATE "C" NOT NULL,
    heartbeat_until bigint NOT NULL,
    places integer NOT NULL DEFAULT 0,
    CONSTRAINT pk_workers PRIMARY KEY (id),
    CONSTRAINT ck_workers_status CHECK ((status = ANY (ARRAY['alive'::text, 'dead'::text, 'shutdown'::text])))
);
