-- Collations, and the database's own (since 15), whose recorded version is not that of the library, and each index that has their order, in its keys, expressions or condition.
WITH versions AS (
    SELECT 100::oid AS oid, format('database %I', d.datname) AS what, to_jsonb(d) ->> 'datcollversion' AS recorded, CASE WHEN to_jsonb(d) ->> 'datcollversion' IS NOT NULL THEN pg_collation_actual_version(100) END AS actual,
           format('ALTER DATABASE %I REFRESH COLLATION VERSION', d.datname) AS refresh, pg_has_role(d.datdba, 'USAGE') AS is_own
    FROM pg_database d WHERE d.datname = current_database()
    UNION ALL
    SELECT c.oid, format('collation %I.%I', n.nspname, c.collname), c.collversion, pg_collation_actual_version(c.oid), format('ALTER COLLATION %I.%I REFRESH VERSION', n.nspname, c.collname), pg_has_role(c.collowner, 'USAGE')
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.collversion IS NOT NULL AND c.oid <> 100
)
SELECT v.what, v.recorded, v.actual, v.refresh, v.is_own, i.oid, i.schema, i.name, i.method, i.is_valid, i.is_exclusion, i.bytes, i.rows, i.expected_bytes, i.table_oid, i.is_index_own
FROM versions v LEFT JOIN LATERAL (
    SELECT x.oid::bigint AS oid, n.nspname::text AS schema, x.relname::text AS name, am.amname::text AS method, i.indisvalid AS is_valid, i.indisexclusion AS is_exclusion, pg_relation_size(x.oid) AS bytes, x.reltuples::float8 AS rows,
           NULL::float8 AS expected_bytes, i.indrelid::bigint AS table_oid, pg_has_role(x.relowner, 'USAGE') AS is_index_own
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace JOIN pg_am am ON am.oid = x.relam
    WHERE x.relkind = 'i' AND x.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
      AND (v.oid = ANY (i.indcollation::oid[]) OR v.oid = 100 AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
           OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid AND d.refclassid = 'pg_collation'::regclass AND d.refobjid = v.oid))
) i ON true
WHERE v.recorded <> v.actual
ORDER BY i.bytes, i.schema, i.name, v.what
