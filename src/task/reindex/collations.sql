-- Collations, and the database's own (since 15), whose recorded version is not that of the library, and each index that depends on them. It follows collated.sql.
-- `place` is of one start of one server: a library does not change before the next, and a restored copy, another server and another database have another.
, compared AS (
    SELECT 100::oid AS oid, format('database %I', d.datname) AS what, to_jsonb(d) ->> 'datcollversion' AS recorded, (SELECT o.actual FROM own_version o) AS actual,
           format('ALTER DATABASE %I REFRESH COLLATION VERSION', d.datname) AS refresh, pg_has_role(d.datdba, 'USAGE') AS is_own
    FROM pg_database d WHERE d.datname = current_database()
    UNION ALL
    SELECT c.oid, format('collation %I.%I', n.nspname, c.collname), c.collversion, pg_collation_actual_version(c.oid), format('ALTER COLLATION %I.%I REFRESH VERSION', n.nspname, c.collname), pg_has_role(c.collowner, 'USAGE')
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.collversion IS NOT NULL AND c.oid <> 100
      -- One for another encoding has the same name, and is of no use here.
      AND c.collencoding IN (-1, (SELECT d.encoding FROM pg_database d WHERE d.datname = current_database()))
), versions AS MATERIALIZED (
    SELECT * FROM compared WHERE recorded <> actual
), concerned AS (
    SELECT v.oid, c.index FROM versions v JOIN collated c ON c.collation = v.oid
    UNION
    SELECT v.oid, c.index FROM versions v CROSS JOIN collated c WHERE c.collation = 0
)
SELECT v.what, v.recorded, v.actual, v.refresh, v.is_own, (SELECT r.tables FROM in_ranges r WHERE r.collation = v.oid) AS in_ranges, i.oid, i.schema, i.name, i.method, i.is_valid, i.is_exclusion, i.bytes, i.rows, i.expected_bytes, i.table_oid, i.is_index_own,
       format('database %s of the server started at %s', (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), extract(epoch FROM pg_postmaster_start_time())) AS place
FROM versions v LEFT JOIN (
    SELECT c.oid AS version, x.oid::bigint AS oid, n.nspname::text AS schema, x.relname::text AS name, am.amname::text AS method, i.indisvalid AS is_valid, i.indisexclusion AS is_exclusion, pg_relation_size(x.oid) AS bytes, x.reltuples::float8 AS rows,
           NULL::float8 AS expected_bytes, i.indrelid::bigint AS table_oid, pg_has_role(x.relowner, 'USAGE') AS is_index_own
    FROM concerned c JOIN pg_index i ON i.indexrelid = c.index JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace JOIN pg_am am ON am.oid = x.relam
    WHERE x.relkind = 'i'
) i ON i.version = v.oid
ORDER BY i.bytes, i.schema, i.name, v.what
