CREATE TABLE portcullis_schema (
    version INTEGER PRIMARY KEY NOT NULL
) STRICT;

-- Times are seconds since the Unix epoch. Lists and metadata are JSON. An empty tenant is none.
CREATE TABLE portcullis_api_keys (
    id BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 10),
    scheme TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    name TEXT NOT NULL,
    subject TEXT NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 256),
    tenant TEXT NOT NULL CHECK (octet_length(tenant) <= 256),
    plan TEXT,
    environment TEXT,
    scopes TEXT NOT NULL,
    roles TEXT NOT NULL,
    addresses TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created INTEGER NOT NULL CHECK (created BETWEEN 0 AND 253402300799),
    not_before INTEGER CHECK (not_before BETWEEN 0 AND 253402300799),
    expires INTEGER CHECK (expires BETWEEN 0 AND 253402300799),
    rotated_from BLOB CHECK (length(rotated_from) = 10),
    rotated_to BLOB CHECK (length(rotated_to) = 10),
    revoked_at INTEGER CHECK (revoked_at BETWEEN 0 AND 253402300799),
    revoked_reason TEXT CHECK ((revoked_reason IS NULL) = (revoked_at IS NULL)),
    last_used_at INTEGER CHECK (last_used_at BETWEEN 0 AND 253402300799),
    last_used_from TEXT CHECK (last_used_from IS NULL OR last_used_at IS NOT NULL)
) STRICT;

CREATE INDEX portcullis_api_keys_of_subject ON portcullis_api_keys (subject, id);
CREATE INDEX portcullis_api_keys_of_tenant ON portcullis_api_keys (tenant, id);
CREATE INDEX portcullis_api_keys_ended ON portcullis_api_keys (coalesce(min(revoked_at, expires), revoked_at, expires));

CREATE TABLE portcullis_disabled_owners (
    tenant TEXT NOT NULL CHECK (octet_length(tenant) <= 256),
    subject TEXT NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 256),
    disabled_at INTEGER NOT NULL CHECK (disabled_at BETWEEN 0 AND 253402300799),
    reason TEXT NOT NULL,
    PRIMARY KEY (tenant, subject)
) STRICT, WITHOUT ROWID;

INSERT INTO portcullis_schema (version) VALUES (1);
