-- Roles that own something in this database, but for the ledger's schema and what extensions made. Not pg_shdepend, in which the
-- bootstrap superuser is not.
WITH member AS MATERIALIZED (
    SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'
), n AS MATERIALIZED (
    SELECT oid, nspname, nspowner FROM pg_catalog.pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\_%'
), owned AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS classid, c.oid, relowner AS owner FROM pg_catalog.pg_class c JOIN n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
    UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, proowner FROM pg_catalog.pg_proc p JOIN n ON n.oid = pronamespace
    UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, typowner FROM pg_catalog.pg_type t JOIN n ON n.oid = typnamespace
    WHERE typtype IN ('d', 'e', 'r')
    UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, nspowner FROM n WHERE nspname <> 'pgtend'
    UNION ALL SELECT 'pg_catalog.pg_largeobject'::pg_catalog.regclass, oid, lomowner FROM pg_catalog.pg_largeobject_metadata
)
SELECT rolname::text FROM pg_catalog.pg_roles
WHERE oid IN (SELECT owner FROM owned
              WHERE owned.oid >= 16384
                AND NOT EXISTS (SELECT FROM member WHERE member.classid = owned.classid AND member.objid = owned.oid))
ORDER BY 1
