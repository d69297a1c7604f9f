-- How many objects of its own a database has, but for those of the schemas $1: schemas, relations, functions and types that neither the system nor an
-- extension brought, and large objects.
WITH own AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\_toast%' AND nspname NOT LIKE 'pg\_temp%'
      AND nspname::text <> ALL ($1)
), found AS (
    SELECT 'pg_namespace'::regclass AS classid, oid FROM own WHERE nspname <> 'public'
    UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM own)
    UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace IN (SELECT oid FROM own)
    UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace IN (SELECT oid FROM own)
)
SELECT count(*) + (SELECT count(*) FROM pg_largeobject_metadata) FROM found f
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = f.classid AND d.objid = f.oid AND d.deptype IN ('e', 'i'))
