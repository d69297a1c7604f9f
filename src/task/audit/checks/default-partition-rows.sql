SELECT t."table" AS object, format('%I.%I', s.nspname, c.relname) AS identity,
       format('Rows have gone to the default partition %I.%I: a partition for their range can only be created after they are moved, and every new partition scans it.', s.nspname, c.relname) AS issue,
       jsonb_build_object('partition', c.relname, 'rows', greatest(c.reltuples, pg_stat_get_live_tuples(c.oid))::bigint) AS evidence,
       CASE WHEN NOT (has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(s.oid, 'USAGE')) THEN format('no privilege to look into %I.%I', s.nspname, c.relname) END AS unknown,
       format('%I.%I', s.nspname, c.relname) AS reads, c.oid::bigint AS reads_oid,
       format('SELECT ''it has rows'' FROM (SELECT FROM %I.%I LIMIT 1) s', s.nspname, c.relname) AS probe,
       CASE WHEN p.partstrat = 'r' AND p.partnatts = 1 AND p.partattrs[0] > 0 AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
           THEN format(E'[partition]\ntable = %s\ncolumn = %s\nevery = "%s"\npremake = 3\n', to_json(t."table"), to_json(a.attname::text),
                           CASE WHEN w.width <= interval '1 hour' THEN 'hour' WHEN w.width <= interval '1 day' THEN 'day' WHEN w.width <= interval '7 days' THEN 'week' WHEN w.width <= interval '31 days' OR w.width IS NULL THEN 'month' WHEN w.width <= interval '92 days' THEN 'quarter' ELSE 'year' END) END AS job
FROM tables t JOIN pg_partitioned_table p ON p.partrelid = t.oid JOIN pg_class c ON c.oid = p.partdefid JOIN pg_namespace s ON s.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = p.partattrs[0]
LEFT JOIN LATERAL (
    SELECT substring(b FROM 'TO \(''([^'']+)''\)')::timestamp - substring(b FROM 'FROM \(''([^'']+)''\)')::timestamp AS width
    FROM (SELECT pg_get_expr(x.relpartbound, 0) AS b FROM pg_inherits i JOIN pg_class x ON x.oid = i.inhrelid WHERE i.inhparent = t.oid AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)) x
    WHERE b ~ '^FOR VALUES FROM \(''[0-9].*TO \(''[0-9]' ORDER BY b DESC LIMIT 1
) w ON true
