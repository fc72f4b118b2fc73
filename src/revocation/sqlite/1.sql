CREATE TABLE portcullis_revocation_schema (
    version INTEGER PRIMARY KEY NOT NULL
) STRICT;

-- Times are seconds since the Unix epoch. No last issue: whenever a token was issued. No number is given twice: who has read up to one
-- has missed none below it, for SQLite has one writer at a time.
CREATE TABLE portcullis_revocations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('token', 'session', 'subject', 'client', 'key')),
    issuer TEXT NOT NULL CHECK (length(CAST(issuer AS BLOB)) BETWEEN 1 AND 2048),
    value TEXT NOT NULL CHECK (length(CAST(value AS BLOB)) BETWEEN 1 AND 2048),
    issued_until INTEGER CHECK (issued_until >= 0),
    ends INTEGER NOT NULL CHECK (ends BETWEEN 0 AND 253402300799),
    UNIQUE (kind, issuer, value)
) STRICT;

CREATE INDEX portcullis_revocations_ended ON portcullis_revocations (ends);

-- What is changed gets a number above all others, by hand too: it is new to everybody.
CREATE TRIGGER portcullis_revocation_changed AFTER UPDATE ON portcullis_revocations BEGIN
    DELETE FROM portcullis_revocations WHERE number = NEW.number;
    INSERT INTO portcullis_revocations (kind, issuer, value, issued_until, ends)
        VALUES (NEW.kind, NEW.issuer, NEW.value, NEW.issued_until, NEW.ends);
END;

INSERT INTO portcullis_revocation_schema (version) VALUES (1);
