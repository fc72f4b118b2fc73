-- Beside the first version's tables, whatever schema comes first by now.
SELECT set_config('search_path', relnamespace::regnamespace::text, true)
    FROM pg_class WHERE oid = 'portcullis_revocations'::regclass;

-- The lock of those who write. Advisory locks are everybody's who may connect; this one needs a right, to change what never has a row.
CREATE TABLE portcullis_revocation_lock ();

-- One after the other, to the end of their transactions: who has read up to a number has missed none below it. The number and the id
-- are never the writer's to choose. The sequence may stand behind the rows, for neither logical replication nor a restore of the table
-- alone brings its value along: then it is set above them.
CREATE OR REPLACE FUNCTION portcullis_number_revocation() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    home TEXT := quote_ident(TG_TABLE_SCHEMA);
    numbers REGCLASS := (home || '.portcullis_revocation_numbers')::regclass;
    last BIGINT;
BEGIN
    EXECUTE 'LOCK TABLE ' || home || '.portcullis_revocation_lock IN SHARE ROW EXCLUSIVE MODE';
    EXECUTE 'SELECT max(number) FROM ' || home || '.portcullis_revocations' INTO last;
    NEW.number := nextval(numbers);
    IF NEW.number <= last THEN
        NEW.number := setval(numbers, last + 1);
    END IF;
    NEW.id := sha256(convert_to(NEW.kind, 'UTF8') || '\x00'::bytea ||
        convert_to(NEW.issuer, 'UTF8') || '\x00'::bytea || convert_to(NEW.value, 'UTF8'));
    RETURN NEW;
END $$;

-- Whoever might write before goes on to.
DO $$
DECLARE
    writer TEXT;
BEGIN
    FOR writer IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END FROM pg_class, aclexplode(relacl)
        WHERE oid = 'portcullis_revocations'::regclass AND privilege_type = 'INSERT'
    LOOP
        EXECUTE 'GRANT UPDATE ON portcullis_revocation_lock TO ' || writer;
        EXECUTE 'GRANT UPDATE ON SEQUENCE portcullis_revocation_numbers TO ' || writer;
    END LOOP;
END $$;

INSERT INTO portcullis_revocation_schema (version) VALUES (2);
