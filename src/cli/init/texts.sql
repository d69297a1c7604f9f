-- Text columns of tables whose TOAST table is large, the largest first; of one table, the widest column first.
SELECT n.nspname::text AS schema, c.relname::text AS name, a.attname::text AS "column", c.oid::bigint AS oid,
       greatest(t.relpages, 0)::bigint * current_setting('block_size')::bigint AS size_bytes
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class t ON t.oid = c.reltoastrelid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited
WHERE c.relkind = 'r' AND NOT c.relispartition AND c.relpersistence = 'p'
  AND a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND a.attstorage IN ('x', 'e', 'm') AND t.relpages > 0
  AND NOT starts_with(n.nspname::text, 'pg_') AND n.nspname NOT IN ('information_schema', 'pgtend')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY size_bytes DESC, n.nspname, c.relname, s.avg_width DESC NULLS LAST, a.attnum
LIMIT 1000
