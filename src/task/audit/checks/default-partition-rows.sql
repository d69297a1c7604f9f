SELECT t."table" AS object, format('%I.%I', s.nspname, c.relname) AS identity,
       format('Rows have gone to the default partition %I.%I: a partition for them can only be made after they are moved, and every new partition scans it.', s.nspname, c.relname) AS issue,
       jsonb_build_object('partition', c.relname, 'rows', greatest(c.reltuples, pg_stat_get_live_tuples(c.oid))::bigint) AS evidence,
       CASE WHEN NOT (has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(s.oid, 'USAGE')) THEN format('no privilege to look into %I.%I', s.nspname, c.relname) END AS unknown,
       format('SELECT ''it has rows'' FROM (SELECT FROM %I.%I LIMIT 1) s', s.nspname, c.relname) AS probe,
       CASE WHEN p.partstrat = 'r' AND p.partnatts = 1 AND p.partattrs[0] > 0 AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
           THEN format(E'[partition]\ntable = %s\ncolumn = %s\nevery = "month"\npremake = 3\n', to_json(t."table"), to_json(format('%I', a.attname))) END AS job
FROM tables t JOIN pg_partitioned_table p ON p.partrelid = t.oid JOIN pg_class c ON c.oid = p.partdefid JOIN pg_namespace s ON s.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = p.partattrs[0]
