-- Partitioned tables of users, with the bounds of their newest partitions.
SELECT n.nspname::text AS schema, c.relname::text AS name, a.attname::text AS "column", c.oid::bigint AS oid,
       p.partstrat::text AS strategy, p.partnatts::int AS columns, format_type(a.atttypid, -1)::text AS type,
       (SELECT array_agg(b.bound)
        FROM (SELECT pg_get_expr(k.relpartbound, k.oid) AS bound
              FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid
              WHERE i.inhparent = c.oid ORDER BY k.oid DESC LIMIT 20) b) AS bounds
FROM pg_partitioned_table p
JOIN pg_class c ON c.oid = p.partrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0] AND a.attnum > 0
WHERE NOT c.relispartition AND c.relpersistence = 'p'
  AND NOT starts_with(n.nspname::text, 'pg_') AND n.nspname NOT IN ('information_schema', 'pgtend')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
LIMIT 1000
