CREATE TABLE portcullis_schema (
    version INTEGER PRIMARY KEY
);

-- Times are seconds since the Unix epoch. Lists and metadata are JSON. An empty tenant is none.
CREATE TABLE portcullis_api_keys (
    id BYTEA PRIMARY KEY CHECK (octet_length(id) = 10),
    scheme TEXT NOT NULL,
    hash BYTEA NOT NULL CHECK (octet_length(hash) = 32),
    name TEXT NOT NULL,
    subject TEXT NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 256),
    tenant TEXT NOT NULL CHECK (octet_length(tenant) <= 256),
    plan TEXT,
    environment TEXT,
    scopes TEXT NOT NULL,
    roles TEXT NOT NULL,
    addresses TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created BIGINT NOT NULL CHECK (created BETWEEN 0 AND 253402300799),
    not_before BIGINT CHECK (not_before BETWEEN 0 AND 253402300799),
    expires BIGINT CHECK (expires BETWEEN 0 AND 253402300799),
    rotated_from BYTEA CHECK (octet_length(rotated_from) = 10),
    rotated_to BYTEA CHECK (octet_length(rotated_to) = 10),
    revoked_at BIGINT CHECK (revoked_at BETWEEN 0 AND 253402300799),
    revoked_reason TEXT CHECK ((revoked_reason IS NULL) = (revoked_at IS NULL)),
    last_used_at BIGINT CHECK (last_used_at BETWEEN 0 AND 253402300799),
    last_used_from TEXT CHECK (last_used_from IS NULL OR last_used_at IS NOT NULL)
);

CREATE INDEX portcullis_api_keys_of_subject ON portcullis_api_keys (subject, id);
CREATE INDEX portcullis_api_keys_of_tenant ON portcullis_api_keys (tenant, id);
CREATE INDEX portcullis_api_keys_ended ON portcullis_api_keys (LEAST(revoked_at, expires));

CREATE TABLE portcullis_disabled_owners (
    tenant TEXT NOT NULL CHECK (octet_length(tenant) <= 256),
    subject TEXT NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 256),
    disabled_at BIGINT NOT NULL CHECK (disabled_at BETWEEN 0 AND 253402300799),
    reason TEXT NOT NULL,
    PRIMARY KEY (tenant, subject)
);

-- Whoever changes a row, by hand too, tells every process that remembers it. What is told arrives with the commit.
CREATE FUNCTION portcullis_tell_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        PERFORM pg_notify('portcullis_api_keys', 'key ' || encode(OLD.id, 'base64'));
    END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN
        PERFORM pg_notify('portcullis_api_keys', 'key ' || encode(NEW.id, 'base64'));
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION portcullis_tell_owner() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        PERFORM pg_notify('portcullis_api_keys', 'owner ' ||
            json_build_object('tenant', nullif(OLD.tenant, ''), 'subject', OLD.subject)::text);
    END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN
        PERFORM pg_notify('portcullis_api_keys', 'owner ' ||
            json_build_object('tenant', nullif(NEW.tenant, ''), 'subject', NEW.subject)::text);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION portcullis_tell_everything() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('portcullis_api_keys', 'everything');
    RETURN NULL;
END $$;

-- All columns but the last use, which nobody has to hear of.
CREATE TRIGGER portcullis_tell AFTER INSERT OR DELETE OR UPDATE OF id, scheme, hash, name, subject, tenant, plan,
    environment, scopes, roles, addresses, metadata, created, not_before, expires, rotated_from, rotated_to, revoked_at,
    revoked_reason
    ON portcullis_api_keys FOR EACH ROW EXECUTE FUNCTION portcullis_tell_key();
CREATE TRIGGER portcullis_tell_all AFTER TRUNCATE
    ON portcullis_api_keys FOR EACH STATEMENT EXECUTE FUNCTION portcullis_tell_everything();
CREATE TRIGGER portcullis_tell AFTER INSERT OR DELETE OR UPDATE
    ON portcullis_disabled_owners FOR EACH ROW EXECUTE FUNCTION portcullis_tell_owner();
CREATE TRIGGER portcullis_tell_all AFTER TRUNCATE
    ON portcullis_disabled_owners FOR EACH STATEMENT EXECUTE FUNCTION portcullis_tell_everything();

INSERT INTO portcullis_schema (version) VALUES (1);
