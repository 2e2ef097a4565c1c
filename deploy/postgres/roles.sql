-- Makes Dagster's role an ordinary one, which owns the database and all in it. `start` runs this in single-user mode, as
-- the superuser that initdb made, whatever its name; an empty line after a semicolon would end the one transaction.
SET search_path = pg_catalog;
DO $$
DECLARE
  command text;
BEGIN
  -- Before version 0.1.0 that superuser was called dagster. Only another user can rename it; nothing can demote it.
  IF (SELECT rolname = 'dagster' FROM pg_roles WHERE oid = 10) THEN
    CREATE ROLE renamer SUPERUSER;
    SET SESSION AUTHORIZATION renamer;
    ALTER ROLE dagster RENAME TO postgres;
    SET SESSION AUTHORIZATION postgres;
    DROP ROLE renamer;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dagster') THEN
    CREATE ROLE dagster;
  END IF;
  FOR command IN
    WITH parts (kind, classid, oid, name, namespace, owner) AS (
      SELECT 'SCHEMA', 'pg_namespace'::regclass, oid, format('%I', nspname), oid, nspowner FROM pg_namespace
      UNION ALL
      SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, 'pg_class'::regclass, oid, oid::regclass::text,
             relnamespace, relowner
      FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      UNION ALL
      SELECT 'ROUTINE', 'pg_proc'::regclass, oid, oid::regprocedure::text, pronamespace, proowner FROM pg_proc
      UNION ALL
      SELECT 'TYPE', 'pg_type'::regclass, t.oid, t.oid::regtype::text, typnamespace, typowner
      FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
      WHERE typtype IN ('d', 'e', 'r') OR c.relkind = 'c'
    )
    SELECT format('ALTER %s %s OWNER TO dagster', kind, name)
    FROM parts JOIN pg_namespace n ON n.oid = namespace
    WHERE owner = 10 AND nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
      -- What an extension brought stays the superuser's; a column's sequence changes with its table.
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = parts.classid AND objid = parts.oid
          AND (deptype = 'e' OR kind = 'SEQUENCE' AND deptype IN ('a', 'i'))
      )
  LOOP
    EXECUTE command;
  END LOOP;
END $$;
ALTER ROLE postgres PASSWORD NULL;
ALTER DATABASE dagster OWNER TO dagster;
ALTER DATABASE dagster RESET ALL;
-- Fewer connections than max_connections in `start`, so that some are left for the superuser.
ALTER ROLE dagster LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 300
  PASSWORD ':password';
-- A session can change all of these but the first, so they stop what is forgotten and not what is hostile.
ALTER ROLE dagster RESET ALL;
ALTER ROLE dagster SET temp_file_limit = '5GB';
ALTER ROLE dagster SET statement_timeout = '1h';
ALTER ROLE dagster SET idle_in_transaction_session_timeout = '10min';
