CREATE TABLE accounts (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    organization_id TEXT,
    full_name TEXT DEFAULT '' NOT NULL,
    folded TEXT DEFAULT '' NOT NULL,
    is_admin BOOLEAN NOT NULL,
    is_auditor BOOLEAN DEFAULT 0 NOT NULL,
    is_active BOOLEAN NOT NULL,
    is_imported BOOLEAN NOT NULL,
    password_hash TEXT,
    password_is_own BOOLEAN DEFAULT 0 NOT NULL,
    created_at BIGINT NOT NULL,
    last_login_at BIGINT,
    CONSTRAINT pk_accounts PRIMARY KEY (id),
    CONSTRAINT ck_accounts_kind CHECK (kind IN ('user', 'organization', 'robot')),
    CONSTRAINT fk_accounts_organization_id_accounts FOREIGN KEY(organization_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT uq_accounts_name UNIQUE (name)
);

CREATE INDEX ix_accounts_administrators ON accounts (name) WHERE is_admin IS 1;

CREATE INDEX ix_accounts_full_name_name ON accounts (full_name, name);

CREATE INDEX ix_accounts_organization_id ON accounts (organization_id);

CREATE TABLE action_configs (
    action TEXT NOT NULL,
    id TEXT NOT NULL,
    parameters TEXT NOT NULL,
    CONSTRAINT pk_action_configs PRIMARY KEY (action)
);

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE audit_positions (
    name TEXT NOT NULL,
    location TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_audit_positions PRIMARY KEY (name)
);

CREATE TABLE blob_contents (
    digest TEXT NOT NULL,
    content BLOB NOT NULL,
    CONSTRAINT pk_blob_contents PRIMARY KEY (digest),
    CONSTRAINT fk_blob_contents_digest_blobs FOREIGN KEY(digest) REFERENCES blobs (digest) ON DELETE CASCADE
);

CREATE TABLE blobs (
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    location TEXT,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_blobs PRIMARY KEY (digest),
    CONSTRAINT ck_blobs_state CHECK (state IN ('present', 'missing')),
    CONSTRAINT uq_blobs_location UNIQUE (location)
);

CREATE TABLE cached_repositories (
    repository_id INTEGER NOT NULL,
    upstream_id TEXT,
    remote_path TEXT NOT NULL,
    CONSTRAINT pk_cached_repositories PRIMARY KEY (repository_id),
    CONSTRAINT fk_cached_repositories_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE,
    CONSTRAINT fk_cached_repositories_upstream_id_upstreams FOREIGN KEY(upstream_id) REFERENCES upstreams (id) ON DELETE SET NULL
);

CREATE INDEX ix_cached_repositories_upstream_id ON cached_repositories (upstream_id);

CREATE TABLE cached_tags (
    repository_id BIGINT NOT NULL,
    name TEXT NOT NULL,
    checked_at BIGINT NOT NULL,
    CONSTRAINT pk_cached_tags PRIMARY KEY (repository_id, name),
    CONSTRAINT fk_cached_tags_repository_id_name_tags FOREIGN KEY(repository_id, name) REFERENCES tags (repository_id, name) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE TABLE crons (
    action TEXT NOT NULL,
    id TEXT NOT NULL,
    schedule TEXT NOT NULL,
    next_run BIGINT NOT NULL,
    retries INTEGER NOT NULL,
    capacity TEXT DEFAULT '{}' NOT NULL,
    parameters TEXT DEFAULT '{}' NOT NULL,
    deadline BIGINT DEFAULT '0' NOT NULL,
    stop_timeout BIGINT DEFAULT '0' NOT NULL,
    CONSTRAINT pk_crons PRIMARY KEY (action)
);

CREATE INDEX ix_crons_next_run ON crons (next_run);

CREATE TABLE enforcement_exceptions (
    id TEXT NOT NULL,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    reason TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    CONSTRAINT pk_enforcement_exceptions PRIMARY KEY (id),
    CONSTRAINT ck_enforcement_exceptions_kind CHECK (kind IN ('tag', 'digest', 'account')),
    CONSTRAINT fk_enforcement_exceptions_scope_enforcement_policies FOREIGN KEY(scope) REFERENCES enforcement_policies (scope) ON DELETE CASCADE
);

CREATE INDEX ix_enforcement_exceptions_scope ON enforcement_exceptions (scope);

CREATE TABLE enforcement_policies (
    scope TEXT NOT NULL,
    repository_id INTEGER,
    namespace_id TEXT,
    mode TEXT NOT NULL,
    signers TEXT NOT NULL,
    teams TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_enforcement_policies PRIMARY KEY (scope),
    CONSTRAINT ck_enforcement_policies_scope CHECK (repository_id IS NULL OR namespace_id IS NULL),
    CONSTRAINT ck_enforcement_policies_mode CHECK (mode IN ('off', 'report', 'enforce')),
    CONSTRAINT fk_enforcement_policies_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT fk_enforcement_policies_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_enforcement_policies_namespace_id ON enforcement_policies (namespace_id);

CREATE INDEX ix_enforcement_policies_repository_id ON enforcement_policies (repository_id);

CREATE TABLE event_cursors (
    name TEXT NOT NULL,
    position BIGINT NOT NULL,
    holder TEXT NOT NULL,
    held_until BIGINT NOT NULL,
    CONSTRAINT pk_event_cursors PRIMARY KEY (name)
);

CREATE TABLE events (
    id INTEGER NOT NULL,
    published_at BIGINT NOT NULL,
    type TEXT NOT NULL,
    actor TEXT NOT NULL,
    actor_name TEXT NOT NULL,
    actor_type TEXT NOT NULL,
    address TEXT NOT NULL,
    repository_id BIGINT,
    repository TEXT NOT NULL,
    object_type TEXT NOT NULL,
    object_id TEXT NOT NULL,
    object_name TEXT NOT NULL,
    object_content TEXT NOT NULL,
    target_type TEXT,
    target_id TEXT,
    target_name TEXT,
    target_content TEXT,
    times BIGINT DEFAULT '1' NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (id)
);

CREATE INDEX ix_events_actor_id ON events (actor, id) WHERE type != 'GET';

CREATE INDEX ix_events_actor_id_pulls ON events (actor, id) WHERE type = 'GET';

CREATE INDEX ix_events_address_id ON events (address, id) WHERE type != 'GET';

CREATE INDEX ix_events_address_id_pulls ON events (address, id) WHERE type = 'GET';

CREATE INDEX ix_events_id ON events (id) WHERE type != 'GET';

CREATE INDEX ix_events_object_type_type_id ON events (object_type, type, id) WHERE type != 'GET';

CREATE INDEX ix_events_published_at ON events (published_at);

CREATE INDEX ix_events_repository_id_id ON events (repository_id, id) WHERE type != 'GET';

CREATE INDEX ix_events_repository_id_id_pulls ON events (repository_id, id) WHERE type = 'GET';

CREATE INDEX ix_events_tag ON events (repository_id, object_name, id) WHERE object_type = 'tag' AND type != 'GET';

CREATE TABLE fetches (
    repository_id BIGINT NOT NULL,
    digest TEXT NOT NULL,
    upload_id TEXT NOT NULL,
    CONSTRAINT pk_fetches PRIMARY KEY (repository_id, digest),
    CONSTRAINT fk_fetches_upload_id_uploads FOREIGN KEY(upload_id) REFERENCES uploads (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE INDEX ix_fetches_upload_id ON fetches (upload_id);

CREATE TABLE gc_objects (
    location TEXT NOT NULL,
    driver_state TEXT,
    size BIGINT NOT NULL,
    delete_after BIGINT NOT NULL,
    repeat_after BIGINT,
    attempts INTEGER DEFAULT '0' NOT NULL,
    last_error TEXT,
    damage TEXT,
    CONSTRAINT pk_gc_objects PRIMARY KEY (location)
);

CREATE INDEX ix_gc_objects_attempts ON gc_objects (attempts) WHERE attempts >= 10;

CREATE INDEX ix_gc_objects_delete_after ON gc_objects (delete_after);

CREATE TABLE image_configs (
    digest TEXT NOT NULL,
    os TEXT NOT NULL,
    os_version TEXT NOT NULL,
    architecture TEXT NOT NULL,
    variant TEXT NOT NULL,
    history TEXT NOT NULL,
    labels TEXT NOT NULL,
    runtime TEXT DEFAULT '{}' NOT NULL,
    CONSTRAINT pk_image_configs PRIMARY KEY (digest),
    CONSTRAINT fk_image_configs_digest_blobs FOREIGN KEY(digest) REFERENCES blobs (digest) ON DELETE CASCADE
);

CREATE TABLE job_logs (
    job TEXT NOT NULL,
    line INTEGER NOT NULL,
    data TEXT NOT NULL,
    level TEXT DEFAULT 'info' NOT NULL,
    CONSTRAINT pk_job_logs PRIMARY KEY (job, line),
    CONSTRAINT ck_job_logs_level CHECK (level IN ('info', 'warning', 'error')),
    CONSTRAINT fk_job_logs_job_jobs FOREIGN KEY(job) REFERENCES jobs (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE INDEX ix_job_logs_trouble ON job_logs (job, level, line) WHERE level != 'info';

CREATE TABLE jobs (
    id TEXT NOT NULL,
    action TEXT NOT NULL,
    status TEXT NOT NULL,
    worker TEXT DEFAULT '' NOT NULL,
    session TEXT DEFAULT '' NOT NULL,
    scheduled_at BIGINT NOT NULL,
    started_at BIGINT,
    updated_at BIGINT NOT NULL,
    cause TEXT DEFAULT 'event' NOT NULL,
    caused_by TEXT DEFAULT '' NOT NULL,
    retries_left INTEGER NOT NULL,
    retries_total INTEGER NOT NULL,
    retry_from TEXT DEFAULT '' NOT NULL,
    capacity TEXT DEFAULT '{}' NOT NULL,
    parameters TEXT DEFAULT '{}' NOT NULL,
    deadline BIGINT DEFAULT '0' NOT NULL,
    stop_timeout BIGINT DEFAULT '0' NOT NULL,
    done BIGINT,
    total BIGINT,
    unit TEXT DEFAULT '' NOT NULL,
    result TEXT DEFAULT '{}' NOT NULL,
    unique_key TEXT,
    ended_at BIGINT,
    deaths INTEGER DEFAULT '0' NOT NULL,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT ck_jobs_cause CHECK (cause IN ('account', 'command', 'schedule', 'retry', 'event'))
);

CREATE INDEX ix_jobs_action ON jobs (action, scheduled_at);

CREATE INDEX ix_jobs_ended ON jobs (status, scheduled_at, id) WHERE ended_at IS NOT NULL;

CREATE INDEX ix_jobs_open ON jobs (scheduled_at, id) WHERE ended_at IS NULL;

CREATE INDEX ix_jobs_retry_from ON jobs (retry_from) WHERE retry_from != '';

CREATE INDEX ix_jobs_scheduled_at ON jobs (scheduled_at, id);

CREATE UNIQUE INDEX uq_jobs_unique_key ON jobs (unique_key) WHERE unique_key IS NOT NULL;

CREATE TABLE login_failures (
    subject TEXT NOT NULL,
    failures INTEGER NOT NULL,
    blocked_until BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT pk_login_failures PRIMARY KEY (subject)
);

CREATE INDEX ix_login_failures_expires_at ON login_failures (expires_at);

CREATE TABLE manifest_references (
    repository_id BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    CONSTRAINT pk_manifest_references PRIMARY KEY (repository_id, manifest, kind, target),
    CONSTRAINT ck_manifest_references_kind CHECK (kind IN ('blob', 'manifest')),
    CONSTRAINT fk_manifest_references_repository_id_manifest_manifests FOREIGN KEY(repository_id, manifest) REFERENCES manifests (repository_id, digest) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE INDEX ix_manifest_references_repository_id_kind_target ON manifest_references (repository_id, kind, target);

CREATE TABLE manifests (
    repository_id INTEGER NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    config_digest TEXT,
    config_media_type TEXT,
    annotations TEXT,
    content_size BIGINT NOT NULL,
    platforms INTEGER DEFAULT '0' NOT NULL,
    payload BLOB NOT NULL,
    author TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    review_at BIGINT,
    CONSTRAINT pk_manifests PRIMARY KEY (repository_id, digest),
    CONSTRAINT fk_manifests_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id)
);

CREATE INDEX ix_manifests_digest_repository_id ON manifests (digest, repository_id);

CREATE INDEX ix_manifests_review_at ON manifests (review_at, repository_id, digest) WHERE review_at IS NOT NULL;

CREATE INDEX ix_manifests_subject ON manifests (repository_id, subject, digest) WHERE subject IS NOT NULL;

CREATE INDEX ix_manifests_subject_artifact_type ON manifests (repository_id, subject, artifact_type, digest) WHERE subject IS NOT NULL AND artifact_type IS NOT NULL;

CREATE TABLE mirrored_tags (
    repository_id INTEGER NOT NULL,
    policy_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    direction TEXT NOT NULL,
    target_tag TEXT NOT NULL,
    remote TEXT NOT NULL,
    digest TEXT NOT NULL,
    status TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempted_at BIGINT NOT NULL,
    mirrored_at BIGINT,
    CONSTRAINT pk_mirrored_tags PRIMARY KEY (repository_id, policy_id, tag),
    CONSTRAINT ck_mirrored_tags_status CHECK (status IN ('mirrored', 'failed', 'waiting', 'skipped')),
    CONSTRAINT fk_mirrored_tags_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE INDEX ix_mirrored_tags_repository_id_digest ON mirrored_tags (repository_id, digest);

CREATE INDEX ix_mirrored_tags_repository_id_tag ON mirrored_tags (repository_id, tag);

CREATE INDEX ix_mirrored_tags_repository_id_target_tag ON mirrored_tags (repository_id, target_tag);

CREATE TABLE mirroring_policies (
    id TEXT NOT NULL,
    repository_id INTEGER NOT NULL,
    direction TEXT NOT NULL,
    remote_id TEXT NOT NULL,
    remote_repository TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    rules TEXT NOT NULL,
    tag_template TEXT NOT NULL,
    with_referrers BOOLEAN NOT NULL,
    with_deletions BOOLEAN NOT NULL,
    schedule TEXT NOT NULL,
    next_run BIGINT,
    skips_present BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    last_mirrored_at BIGINT,
    status_code TEXT DEFAULT '' NOT NULL,
    status_detail TEXT DEFAULT '' NOT NULL,
    status_at BIGINT,
    last_job TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_mirroring_policies PRIMARY KEY (id),
    CONSTRAINT ck_mirroring_policies_direction CHECK (direction IN ('push', 'poll')),
    CONSTRAINT fk_mirroring_policies_remote_id_remotes FOREIGN KEY(remote_id) REFERENCES remotes (id) ON DELETE CASCADE,
    CONSTRAINT fk_mirroring_policies_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_mirroring_policies_next_run ON mirroring_policies (next_run) WHERE next_run IS NOT NULL;

CREATE INDEX ix_mirroring_policies_remote_id ON mirroring_policies (remote_id);

CREATE INDEX ix_mirroring_policies_repository_id ON mirroring_policies (repository_id);

CREATE TABLE namespace_grants (
    namespace_id TEXT NOT NULL,
    team_id TEXT NOT NULL,
    level TEXT NOT NULL,
    CONSTRAINT pk_namespace_grants PRIMARY KEY (namespace_id, team_id),
    CONSTRAINT ck_namespace_grants_level CHECK (level IN ('read-only', 'read-write', 'admin')),
    CONSTRAINT fk_namespace_grants_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT fk_namespace_grants_team_id_teams FOREIGN KEY(team_id) REFERENCES teams (id) ON DELETE CASCADE
);

CREATE INDEX ix_namespace_grants_team_id ON namespace_grants (team_id);

CREATE TABLE namespace_storages (
    namespace_id TEXT NOT NULL,
    storage TEXT NOT NULL,
    CONSTRAINT pk_namespace_storages PRIMARY KEY (namespace_id),
    CONSTRAINT fk_namespace_storages_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT fk_namespace_storages_storage_storages FOREIGN KEY(storage) REFERENCES storages (name)
);

CREATE INDEX ix_namespace_storages_storage ON namespace_storages (storage);

CREATE TABLE namespace_user_grants (
    namespace_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    level TEXT NOT NULL,
    CONSTRAINT pk_namespace_user_grants PRIMARY KEY (namespace_id, user_id),
    CONSTRAINT ck_namespace_user_grants_level CHECK (level IN ('read-only', 'read-write', 'admin')),
    CONSTRAINT fk_namespace_user_grants_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT fk_namespace_user_grants_user_id_accounts FOREIGN KEY(user_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE INDEX ix_namespace_user_grants_user_id ON namespace_user_grants (user_id);

CREATE TABLE organization_members (
    organization_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    is_admin BOOLEAN NOT NULL,
    CONSTRAINT pk_organization_members PRIMARY KEY (organization_id, user_id),
    CONSTRAINT fk_organization_members_organization_id_accounts FOREIGN KEY(organization_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT fk_organization_members_user_id_accounts FOREIGN KEY(user_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE INDEX ix_organization_members_owners ON organization_members (organization_id, user_id) WHERE is_admin IS 1;

CREATE INDEX ix_organization_members_user_id ON organization_members (user_id);

CREATE TABLE pinned_repositories (
    account_id TEXT NOT NULL,
    repository_id INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_pinned_repositories PRIMARY KEY (account_id, repository_id),
    CONSTRAINT fk_pinned_repositories_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT fk_pinned_repositories_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_pinned_repositories_repository_id ON pinned_repositories (repository_id);

CREATE TABLE policy_tags (
    policy_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    repository_id INTEGER NOT NULL,
    digest TEXT NOT NULL,
    moment BIGINT NOT NULL,
    chain TEXT NOT NULL,
    state TEXT NOT NULL,
    waits_for TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_policy_tags PRIMARY KEY (policy_id, tag),
    CONSTRAINT ck_policy_tags_state CHECK (state IN ('done', 'waits')),
    CONSTRAINT fk_policy_tags_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_policy_tags_repository_id_digest ON policy_tags (repository_id, digest);

CREATE INDEX ix_policy_tags_waiting ON policy_tags (policy_id, tag) WHERE state = 'waits';

CREATE TABLE promotion_policies (
    id TEXT NOT NULL,
    source_id INTEGER NOT NULL,
    target_id INTEGER NOT NULL,
    enabled BOOLEAN NOT NULL,
    rules TEXT NOT NULL,
    tag_template TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_promoted_at BIGINT,
    last_failed_at BIGINT,
    last_failure TEXT DEFAULT '' NOT NULL,
    last_job TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_promotion_policies PRIMARY KEY (id),
    CONSTRAINT fk_promotion_policies_source_id_repositories FOREIGN KEY(source_id) REFERENCES repositories (id) ON DELETE CASCADE,
    CONSTRAINT fk_promotion_policies_target_id_repositories FOREIGN KEY(target_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_promotion_policies_source_id ON promotion_policies (source_id);

CREATE INDEX ix_promotion_policies_target_id ON promotion_policies (target_id);

CREATE TABLE pruning_policies (
    id TEXT NOT NULL,
    repository_id INTEGER NOT NULL,
    enabled BOOLEAN NOT NULL,
    rules TEXT NOT NULL,
    keep INTEGER NOT NULL,
    since BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_pruned_at BIGINT,
    waiting INTEGER DEFAULT '0' NOT NULL,
    deleted INTEGER DEFAULT '0' NOT NULL,
    newest INTEGER DEFAULT '0' NOT NULL,
    signed INTEGER DEFAULT '0' NOT NULL,
    protected INTEGER DEFAULT '0' NOT NULL,
    last_job TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_pruning_policies PRIMARY KEY (id),
    CONSTRAINT fk_pruning_policies_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_pruning_policies_repository_id ON pruning_policies (repository_id);

CREATE TABLE public_keys (
    account_id TEXT NOT NULL,
    id TEXT NOT NULL,
    public_key TEXT NOT NULL,
    label TEXT DEFAULT '' NOT NULL,
    certificates TEXT DEFAULT '[]' NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_public_keys PRIMARY KEY (account_id, id),
    CONSTRAINT fk_public_keys_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE INDEX ix_public_keys_id_account_id ON public_keys (id, account_id);

CREATE TABLE pulls (
    repository_id INTEGER NOT NULL,
    reference TEXT NOT NULL,
    pulls BIGINT NOT NULL,
    last_pulled_at BIGINT NOT NULL,
    CONSTRAINT pk_pulls PRIMARY KEY (repository_id, reference),
    CONSTRAINT fk_pulls_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE TABLE remotes (
    id TEXT NOT NULL,
    name TEXT,
    repository_id INTEGER,
    namespace_id TEXT,
    host TEXT NOT NULL,
    username TEXT NOT NULL,
    password TEXT,
    token TEXT,
    ca TEXT NOT NULL,
    skip_tls_verification BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_remotes PRIMARY KEY (id),
    CONSTRAINT ck_remotes_single CHECK ((name IS NULL) = (repository_id IS NOT NULL)),
    CONSTRAINT ck_remotes_shared CHECK (namespace_id IS NULL OR name IS NOT NULL),
    CONSTRAINT fk_remotes_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE,
    CONSTRAINT fk_remotes_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT uq_remotes_namespace_id_name UNIQUE (namespace_id, name)
);

CREATE INDEX ix_remotes_repository_id ON remotes (repository_id);

CREATE UNIQUE INDEX uq_remotes_name ON remotes (name) WHERE namespace_id IS NULL;

CREATE TABLE replicas (
    id TEXT NOT NULL,
    node TEXT NOT NULL,
    version TEXT NOT NULL,
    components TEXT NOT NULL,
    http_port INTEGER,
    https_port INTEGER,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    CONSTRAINT pk_replicas PRIMARY KEY (id)
);

CREATE TRIGGER repository_texts_delete AFTER DELETE ON repositories BEGIN
        DELETE FROM repository_texts WHERE rowid IN (old.id, -old.id);
    END;

CREATE TRIGGER repository_texts_insert AFTER INSERT ON repositories WHEN new.deleted_at IS NULL BEGIN
        INSERT INTO repository_texts (rowid, path, folded)
        VALUES (iif(new.visibility = 'public', -new.id, new.id), new.path, new.folded);
    END;

CREATE TRIGGER repository_texts_update AFTER UPDATE ON repositories
    WHEN old.path <> new.path OR old.folded <> new.folded OR old.visibility <> new.visibility
        OR (old.deleted_at IS NULL) <> (new.deleted_at IS NULL)
    BEGIN
        DELETE FROM repository_texts WHERE rowid IN (old.id, -old.id);
        INSERT INTO repository_texts (rowid, path, folded)
        SELECT iif(new.visibility = 'public', -new.id, new.id), new.path, new.folded WHERE new.deleted_at IS NULL;
    END;

CREATE TABLE repositories (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    namespace_id TEXT,
    path TEXT NOT NULL,
    name TEXT NOT NULL GENERATED ALWAYS AS (substr(path, instr(path, '/') + 1)) STORED,
    visibility TEXT NOT NULL,
    short_description TEXT DEFAULT '' NOT NULL,
    long_description TEXT DEFAULT '' NOT NULL,
    folded TEXT DEFAULT '' NOT NULL,
    scan_on_push BOOLEAN NOT NULL,
    immutable_tags BOOLEAN NOT NULL,
    immutable_patterns TEXT DEFAULT '[]' NOT NULL,
    tag_limit INTEGER NOT NULL,
    has_policies BOOLEAN DEFAULT 0 NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT,
    CONSTRAINT ck_repositories_owned CHECK (namespace_id IS NOT NULL OR deleted_at IS NOT NULL),
    CONSTRAINT ck_repositories_visibility CHECK (visibility IN ('public', 'private')),
    CONSTRAINT fk_repositories_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE SET NULL
);

CREATE INDEX ix_repositories_deleted_at ON repositories (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE INDEX ix_repositories_namespace_id ON repositories (namespace_id);

CREATE INDEX ix_repositories_namespace_id_visibility_path_name ON repositories (namespace_id, visibility, path, name, deleted_at) WHERE deleted_at IS NULL;

CREATE INDEX ix_repositories_visibility ON repositories (visibility, deleted_at) WHERE deleted_at IS NULL;

CREATE INDEX ix_repositories_visibility_name_path ON repositories (visibility, name, path, deleted_at) WHERE deleted_at IS NULL;

CREATE INDEX ix_repositories_visibility_path ON repositories (visibility, path, deleted_at) WHERE deleted_at IS NULL;

CREATE UNIQUE INDEX uq_repositories_path ON repositories (path) WHERE deleted_at IS NULL;

CREATE TABLE repository_blobs (
    repository_id INTEGER NOT NULL,
    digest TEXT NOT NULL,
    review_at BIGINT,
    CONSTRAINT pk_repository_blobs PRIMARY KEY (repository_id, digest),
    CONSTRAINT fk_repository_blobs_digest_blobs FOREIGN KEY(digest) REFERENCES blobs (digest),
    CONSTRAINT fk_repository_blobs_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id)
)
 WITHOUT ROWID

;

CREATE INDEX ix_repository_blobs_digest ON repository_blobs (digest);

CREATE INDEX ix_repository_blobs_review_at ON repository_blobs (review_at, repository_id, digest) WHERE review_at IS NOT NULL;

CREATE TABLE repository_grants (
    repository_id INTEGER NOT NULL,
    team_id TEXT NOT NULL,
    level TEXT NOT NULL,
    CONSTRAINT pk_repository_grants PRIMARY KEY (repository_id, team_id),
    CONSTRAINT ck_repository_grants_level CHECK (level IN ('read-only', 'read-write', 'admin')),
    CONSTRAINT fk_repository_grants_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE,
    CONSTRAINT fk_repository_grants_team_id_teams FOREIGN KEY(team_id) REFERENCES teams (id) ON DELETE CASCADE
);

CREATE INDEX ix_repository_grants_team_id ON repository_grants (team_id);

CREATE TABLE repository_redirects (
    path TEXT NOT NULL,
    repository_id INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_repository_redirects PRIMARY KEY (path),
    CONSTRAINT fk_repository_redirects_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_repository_redirects_repository_id ON repository_redirects (repository_id);

CREATE TABLE repository_summaries (
    repository_id INTEGER NOT NULL,
    namespace_id TEXT NOT NULL,
    visibility TEXT NOT NULL,
    path TEXT NOT NULL,
    latest_tag TEXT DEFAULT '' NOT NULL,
    kind TEXT DEFAULT '' NOT NULL,
    is_signed BOOLEAN DEFAULT 0 NOT NULL,
    bytes BIGINT DEFAULT '0' NOT NULL,
    pulls BIGINT DEFAULT '0' NOT NULL,
    pushed_at BIGINT DEFAULT '0' NOT NULL,
    CONSTRAINT pk_repository_summaries PRIMARY KEY (repository_id),
    CONSTRAINT fk_repository_summaries_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_repository_summaries_namespace_id_visibility_repository_id ON repository_summaries (namespace_id, visibility, repository_id);

CREATE INDEX ix_repository_summaries_pushed_at ON repository_summaries (pushed_at DESC, path, visibility, namespace_id);

CREATE VIRTUAL TABLE repository_texts USING fts5(path, folded, tokenize = 'trigram');

CREATE TABLE 'repository_texts_config'(k PRIMARY KEY, v) WITHOUT ROWID;

CREATE TABLE 'repository_texts_content'(id INTEGER PRIMARY KEY, c0, c1);

CREATE TABLE 'repository_texts_data'(id INTEGER PRIMARY KEY, block BLOB);

CREATE TABLE 'repository_texts_docsize'(id INTEGER PRIMARY KEY, sz BLOB);

CREATE TABLE 'repository_texts_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;

CREATE TABLE repository_user_grants (
    repository_id INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    level TEXT NOT NULL,
    CONSTRAINT pk_repository_user_grants PRIMARY KEY (repository_id, user_id),
    CONSTRAINT ck_repository_user_grants_level CHECK (level IN ('read-only', 'read-write', 'admin')),
    CONSTRAINT fk_repository_user_grants_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE,
    CONSTRAINT fk_repository_user_grants_user_id_accounts FOREIGN KEY(user_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE INDEX ix_repository_user_grants_user_id ON repository_user_grants (user_id);

CREATE TABLE revisions (
    name TEXT NOT NULL,
    value BIGINT NOT NULL,
    CONSTRAINT pk_revisions PRIMARY KEY (name)
);

CREATE TABLE sessions (
    id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address TEXT DEFAULT '' NOT NULL,
    user_agent TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_sessions PRIMARY KEY (id),
    CONSTRAINT fk_sessions_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE INDEX ix_sessions_account_id ON sessions (account_id);

CREATE INDEX ix_sessions_expires_at ON sessions (expires_at);

CREATE TABLE settings (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_settings PRIMARY KEY (name)
);

CREATE TABLE shared_keys (
    name TEXT NOT NULL,
    "key" TEXT NOT NULL,
    CONSTRAINT pk_shared_keys PRIMARY KEY (name)
);

CREATE TABLE signature_proofs (
    repository_id BIGINT NOT NULL,
    subject TEXT NOT NULL,
    manifest TEXT NOT NULL,
    number INTEGER NOT NULL,
    identity_id TEXT NOT NULL,
    valid_until BIGINT,
    CONSTRAINT pk_signature_proofs PRIMARY KEY (repository_id, subject, manifest, number, identity_id),
    CONSTRAINT fk_signature_proofs_repository_id_subject_manifest_number_signatures FOREIGN KEY(repository_id, subject, manifest, number) REFERENCES signatures (repository_id, subject, manifest, number) ON DELETE CASCADE,
    CONSTRAINT fk_signature_proofs_identity_id_signing_identities FOREIGN KEY(identity_id) REFERENCES signing_identities (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE INDEX ix_signature_proofs_identity_id ON signature_proofs (identity_id);

CREATE TABLE signatures (
    repository_id BIGINT NOT NULL,
    subject TEXT NOT NULL,
    manifest TEXT NOT NULL,
    number INTEGER NOT NULL,
    tag TEXT,
    kind TEXT NOT NULL,
    format TEXT NOT NULL,
    predicate_type TEXT NOT NULL,
    signer TEXT NOT NULL,
    signed_at BIGINT,
    problem TEXT NOT NULL,
    objection TEXT NOT NULL,
    checked_at BIGINT NOT NULL,
    CONSTRAINT pk_signatures PRIMARY KEY (repository_id, subject, manifest, number),
    CONSTRAINT ck_signatures_kind CHECK (kind IN ('signature', 'attestation')),
    CONSTRAINT fk_signatures_repository_id_manifest_manifests FOREIGN KEY(repository_id, manifest) REFERENCES manifests (repository_id, digest) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE INDEX ix_signatures_repository_id_manifest ON signatures (repository_id, manifest);

CREATE TABLE signer_keys (
    key_id TEXT NOT NULL,
    gun TEXT NOT NULL,
    role TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    public BLOB NOT NULL,
    private TEXT NOT NULL,
    alias TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    CONSTRAINT pk_signer_keys PRIMARY KEY (key_id)
);

CREATE INDEX ix_signer_keys_alias ON signer_keys (alias);

CREATE UNIQUE INDEX uq_signer_keys_pending ON signer_keys (gun, role, algorithm) WHERE last_used_at IS NULL;

CREATE TABLE signing_identities (
    id TEXT NOT NULL,
    namespace_id TEXT,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    content TEXT NOT NULL,
    subject TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_signing_identities PRIMARY KEY (id),
    CONSTRAINT ck_signing_identities_kind CHECK (kind IN ('key', 'certificate', 'keyless')),
    CONSTRAINT fk_signing_identities_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT uq_signing_identities_namespace_id_name UNIQUE (namespace_id, name)
);

CREATE UNIQUE INDEX uq_signing_identities_name ON signing_identities (name) WHERE namespace_id IS NULL;

CREATE TABLE signing_keys (
    id TEXT NOT NULL,
    private_key TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    signs_from BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT pk_signing_keys PRIMARY KEY (id)
);

CREATE TABLE sqlite_sequence(name,seq);

CREATE TABLE storages (
    name TEXT NOT NULL,
    driver TEXT NOT NULL,
    parameters TEXT,
    secrets TEXT,
    place TEXT NOT NULL,
    redirect_seconds INTEGER,
    redirect_except TEXT NOT NULL,
    is_default BOOLEAN NOT NULL,
    used_until BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    CONSTRAINT pk_storages PRIMARY KEY (name),
    CONSTRAINT ck_storages_described CHECK (secrets IS NULL OR parameters IS NOT NULL)
);

CREATE TABLE tag_origins (
    repository_id BIGINT NOT NULL,
    name TEXT NOT NULL,
    manifest TEXT NOT NULL,
    moved_at BIGINT NOT NULL,
    source_repository TEXT NOT NULL,
    source_tag TEXT NOT NULL,
    policy_id TEXT NOT NULL,
    CONSTRAINT pk_tag_origins PRIMARY KEY (repository_id, name),
    CONSTRAINT fk_tag_origins_repository_id_name_tags FOREIGN KEY(repository_id, name) REFERENCES tags (repository_id, name) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE TABLE tags (
    repository_id BIGINT NOT NULL,
    name TEXT NOT NULL,
    manifest TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    version_key TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_tags PRIMARY KEY (repository_id, name),
    CONSTRAINT fk_tags_repository_id_manifest_manifests FOREIGN KEY(repository_id, manifest) REFERENCES manifests (repository_id, digest) DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;

CREATE INDEX ix_tags_repository_id_created_at_name ON tags (repository_id, created_at, name);

CREATE INDEX ix_tags_repository_id_manifest_version_key ON tags (repository_id, manifest, version_key);

CREATE INDEX ix_tags_repository_id_updated_at_name ON tags (repository_id, updated_at, name);

CREATE INDEX ix_tags_repository_id_version_key_name ON tags (repository_id, version_key, name);

CREATE TABLE team_members (
    team_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    is_admin BOOLEAN NOT NULL,
    CONSTRAINT pk_team_members PRIMARY KEY (team_id, user_id),
    CONSTRAINT fk_team_members_team_id_teams FOREIGN KEY(team_id) REFERENCES teams (id) ON DELETE CASCADE,
    CONSTRAINT fk_team_members_user_id_accounts FOREIGN KEY(user_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE INDEX ix_team_members_user_id ON team_members (user_id);

CREATE TABLE teams (
    id TEXT NOT NULL,
    organization_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_teams PRIMARY KEY (id),
    CONSTRAINT fk_teams_organization_id_accounts FOREIGN KEY(organization_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT uq_teams_organization_id_name UNIQUE (organization_id, name)
);

CREATE TABLE tokens (
    id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    parent_id TEXT,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    last_used_address TEXT DEFAULT '' NOT NULL,
    expires_at BIGINT,
    creator_user_agent TEXT DEFAULT '' NOT NULL,
    scope TEXT,
    CONSTRAINT pk_tokens PRIMARY KEY (id),
    CONSTRAINT ck_tokens_kind CHECK (kind IN ('access', 'refresh')),
    CONSTRAINT fk_tokens_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT fk_tokens_parent_id_tokens FOREIGN KEY(parent_id) REFERENCES tokens (id) ON DELETE CASCADE
);

CREATE INDEX ix_tokens_account_id_id ON tokens (account_id, id);

CREATE INDEX ix_tokens_expires_at ON tokens (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX ix_tokens_inactive ON tokens (created_at) WHERE is_active IS 0;

CREATE INDEX ix_tokens_parent_id ON tokens (parent_id);

CREATE TABLE trust_changes (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    repository_id BIGINT NOT NULL,
    gun TEXT NOT NULL,
    version BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    category TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT ck_trust_changes_category CHECK (category IN ('update', 'deletion'))
);

CREATE INDEX ix_trust_changes_repository_id_gun_id ON trust_changes (repository_id, gun, id);

CREATE TABLE trust_delegations (
    repository_id INTEGER NOT NULL,
    gun TEXT NOT NULL,
    role TEXT NOT NULL,
    key_id TEXT NOT NULL,
    public_key_id TEXT NOT NULL,
    has_signed BOOLEAN NOT NULL,
    CONSTRAINT pk_trust_delegations PRIMARY KEY (repository_id, gun, role, key_id),
    CONSTRAINT fk_trust_delegations_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE INDEX ix_trust_delegations_key_id ON trust_delegations (key_id);

CREATE TABLE trust_files (
    repository_id INTEGER NOT NULL,
    gun TEXT NOT NULL,
    role TEXT NOT NULL,
    version BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    content BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_trust_files PRIMARY KEY (repository_id, gun, role, version),
    CONSTRAINT fk_trust_files_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE
);

CREATE INDEX ix_trust_files_repository_id_gun_sha256 ON trust_files (repository_id, gun, sha256);

CREATE TABLE trust_roles (
    repository_id BIGINT NOT NULL,
    gun TEXT NOT NULL,
    role TEXT NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT pk_trust_roles PRIMARY KEY (repository_id, gun, role),
    CONSTRAINT fk_trust_roles_version_trust_files FOREIGN KEY(repository_id, gun, role, version) REFERENCES trust_files (repository_id, gun, role, version) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE TABLE trust_targets (
    repository_id BIGINT NOT NULL,
    name TEXT NOT NULL,
    gun TEXT NOT NULL,
    role TEXT NOT NULL,
    digest TEXT NOT NULL,
    length BIGINT NOT NULL,
    signed_at BIGINT NOT NULL,
    forgotten_at BIGINT,
    CONSTRAINT pk_trust_targets PRIMARY KEY (repository_id, name, gun, role),
    CONSTRAINT fk_trust_targets_role_trust_roles FOREIGN KEY(repository_id, gun, role) REFERENCES trust_roles (repository_id, gun, role) ON DELETE CASCADE
)
 WITHOUT ROWID

;

CREATE INDEX ix_trust_targets_repository_id_digest_forgotten_at ON trust_targets (repository_id, digest, forgotten_at);

CREATE INDEX ix_trust_targets_repository_id_gun_role ON trust_targets (repository_id, gun, role);

CREATE TABLE uploads (
    id TEXT NOT NULL,
    repository_id INTEGER NOT NULL,
    location TEXT NOT NULL,
    driver_state TEXT NOT NULL,
    "offset" BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    digest TEXT,
    writer TEXT DEFAULT '' NOT NULL,
    writer_until BIGINT DEFAULT '0' NOT NULL,
    started_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT pk_uploads PRIMARY KEY (id),
    CONSTRAINT fk_uploads_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id),
    CONSTRAINT uq_uploads_location UNIQUE (location)
);

CREATE INDEX ix_uploads_expires_at ON uploads (expires_at);

CREATE INDEX ix_uploads_repository_id ON uploads (repository_id);

CREATE TABLE upstreams (
    id TEXT NOT NULL,
    repository_id INTEGER,
    namespace_id TEXT,
    remote_id TEXT NOT NULL,
    remote_path TEXT NOT NULL,
    tag_patterns TEXT NOT NULL,
    visibility TEXT NOT NULL,
    max_age BIGINT NOT NULL,
    keep_for BIGINT,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_upstreams PRIMARY KEY (id),
    CONSTRAINT ck_upstreams_scope CHECK ((repository_id IS NULL) <> (namespace_id IS NULL)),
    CONSTRAINT ck_upstreams_visibility CHECK (visibility IN ('public', 'private')),
    CONSTRAINT fk_upstreams_repository_id_repositories FOREIGN KEY(repository_id) REFERENCES repositories (id) ON DELETE CASCADE,
    CONSTRAINT fk_upstreams_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT fk_upstreams_remote_id_remotes FOREIGN KEY(remote_id) REFERENCES remotes (id) ON DELETE CASCADE,
    CONSTRAINT uq_upstreams_repository_id UNIQUE (repository_id),
    CONSTRAINT uq_upstreams_namespace_id UNIQUE (namespace_id)
);

CREATE INDEX ix_upstreams_remote_id ON upstreams (remote_id);

CREATE TABLE usage (
    scope TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    pulls BIGINT DEFAULT '0' NOT NULL,
    pushes BIGINT DEFAULT '0' NOT NULL,
    pulled_at BIGINT,
    pushed_at BIGINT,
    CONSTRAINT pk_usage PRIMARY KEY (scope)
);

CREATE TABLE usage_days (
    scope TEXT NOT NULL,
    day BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    pulls BIGINT NOT NULL,
    pushes BIGINT NOT NULL,
    CONSTRAINT pk_usage_days PRIMARY KEY (scope, day)
);

CREATE INDEX ix_usage_days_day ON usage_days (day);

CREATE TABLE usage_deltas (
    id INTEGER NOT NULL,
    scope TEXT NOT NULL,
    bytes BIGINT DEFAULT '0' NOT NULL,
    pulls BIGINT DEFAULT '0' NOT NULL,
    pushes BIGINT DEFAULT '0' NOT NULL,
    pulled_at BIGINT,
    pushed_at BIGINT,
    CONSTRAINT pk_usage_deltas PRIMARY KEY (id)
);

CREATE INDEX ix_usage_deltas_scope ON usage_deltas (scope);

CREATE TABLE used_upload_ids (
    id TEXT NOT NULL,
    CONSTRAINT pk_used_upload_ids PRIMARY KEY (id)
)
 WITHOUT ROWID

;

CREATE TABLE user_settings (
    account_id TEXT NOT NULL,
    language TEXT,
    content_cache TEXT,
    CONSTRAINT pk_user_settings PRIMARY KEY (account_id),
    CONSTRAINT fk_user_settings_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE TABLE webhook_deliveries (
    id TEXT NOT NULL,
    webhook_id TEXT NOT NULL,
    event_id BIGINT,
    repeats TEXT DEFAULT '' NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    attempted_at BIGINT,
    status_code INTEGER,
    answer TEXT DEFAULT '' NOT NULL,
    error TEXT DEFAULT '' NOT NULL,
    duration INTEGER,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id),
    CONSTRAINT ck_webhook_deliveries_status CHECK (status IN ('waiting', 'delivered', 'failed')),
    CONSTRAINT fk_webhook_deliveries_webhook_id_webhooks FOREIGN KEY(webhook_id) REFERENCES webhooks (id) ON DELETE CASCADE,
    CONSTRAINT uq_webhook_deliveries_webhook_id_event_id UNIQUE (webhook_id, event_id)
);

CREATE INDEX ix_webhook_deliveries_created_at ON webhook_deliveries (created_at);

CREATE INDEX ix_webhook_deliveries_webhook_id_created_at ON webhook_deliveries (webhook_id, created_at, id);

CREATE TABLE webhooks (
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    repository_id BIGINT,
    namespace_id TEXT,
    author_id TEXT NOT NULL,
    name TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    format TEXT NOT NULL,
    tls_cert TEXT NOT NULL,
    skip_tls_verification BOOLEAN NOT NULL,
    secret TEXT,
    is_active BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT,
    last_successful_at BIGINT,
    failing_since BIGINT,
    last_error TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_webhooks PRIMARY KEY (id),
    CONSTRAINT ck_webhooks_format CHECK (format IN ('dtr', 'cloudevents')),
    CONSTRAINT ck_webhooks_scope CHECK (repository_id IS NULL OR namespace_id IS NULL),
    CONSTRAINT fk_webhooks_namespace_id_accounts FOREIGN KEY(namespace_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE INDEX ix_webhooks_author_id ON webhooks (author_id);

CREATE INDEX ix_webhooks_namespace_id ON webhooks (namespace_id);

CREATE INDEX ix_webhooks_repository_id ON webhooks (repository_id);

CREATE INDEX ix_webhooks_type_active ON webhooks (type) WHERE is_active IS 1;

CREATE TABLE workers (
    id TEXT NOT NULL,
    node TEXT NOT NULL,
    status TEXT NOT NULL,
    capacity TEXT DEFAULT '{}' NOT NULL,
    session TEXT NOT NULL,
    heartbeat_until BIGINT NOT NULL,
    places INTEGER DEFAULT '0' NOT NULL,
    CONSTRAINT pk_workers PRIMARY KEY (id),
    CONSTRAINT ck_workers_status CHECK (status IN ('alive', 'dead', 'shutdown'))
);
