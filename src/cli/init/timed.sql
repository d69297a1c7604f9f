-- Tables of users with a column that holds a time, the largest first. Sizes are those of the catalog, which takes no locks.
SELECT n.nspname::text AS schema, c.relname::text AS name, a.attname::text AS "column", c.oid::bigint AS oid, c.reltuples::float8 AS rows,
       (greatest(c.relpages, 0)::bigint + greatest(coalesce(t.relpages, 0), 0)::bigint) * current_setting('block_size')::bigint AS size_bytes,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indkey[0] = a.attnum) AS is_indexed
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
WHERE c.relkind = 'r' AND NOT c.relispartition AND c.relpersistence = 'p'
  AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
  AND NOT starts_with(n.nspname::text, 'pg_') AND n.nspname NOT IN ('information_schema', 'pgtend')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY size_bytes DESC, n.nspname, c.relname, a.attnum
LIMIT 5000
