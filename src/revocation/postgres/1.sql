CREATE TABLE portcullis_revocation_schema (
    version INTEGER PRIMARY KEY
);

CREATE SEQUENCE portcullis_revocation_numbers;

-- Times are seconds since the Unix epoch. No last issue: whenever a token was issued.
CREATE TABLE portcullis_revocations (
    id BYTEA PRIMARY KEY CHECK (octet_length(id) = 32),
    number BIGINT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('token', 'session', 'subject', 'client', 'key')),
    issuer TEXT NOT NULL CHECK (octet_length(issuer) BETWEEN 1 AND 2048),
    value TEXT NOT NULL CHECK (octet_length(value) BETWEEN 1 AND 2048),
    issued_until BIGINT CHECK (issued_until >= 0),
    ends BIGINT NOT NULL CHECK (ends BETWEEN 0 AND 253402300799)
);

CREATE INDEX portcullis_revocations_ended ON portcullis_revocations (ends);

-- One after the other, to the end of their transactions: who has read up to a number has missed none below it. The number
-- and the id are never the writer's to choose.
CREATE FUNCTION portcullis_number_revocation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(8101820099123836524);
    NEW.number := nextval('portcullis_revocation_numbers');
    NEW.id := pg_catalog.sha256(pg_catalog.convert_to(NEW.kind, 'UTF8') || '\x00'::bytea ||
        pg_catalog.convert_to(NEW.issuer, 'UTF8') || '\x00'::bytea || pg_catalog.convert_to(NEW.value, 'UTF8'));
    RETURN NEW;
END $$;

-- Whoever adds a row, by hand too, tells every process to read, with the commit. Not what was revoked: whoever may connect hears it.
CREATE FUNCTION portcullis_tell_revocation() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('portcullis_revocations', '');
    RETURN NULL;
END $$;

CREATE TRIGGER portcullis_number BEFORE INSERT OR UPDATE
    ON portcullis_revocations FOR EACH ROW EXECUTE FUNCTION portcullis_number_revocation();
CREATE TRIGGER portcullis_tell AFTER INSERT OR UPDATE
    ON portcullis_revocations FOR EACH ROW EXECUTE FUNCTION portcullis_tell_revocation();

INSERT INTO portcullis_revocation_schema (version) VALUES (1);
