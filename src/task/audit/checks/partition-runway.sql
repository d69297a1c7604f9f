-- The last bound of a table partitioned by time, against now: less than one more period, or a year, is late. A table whose last bound is more than a year ago counts as abandoned.
-- Beside a default partition no SQL is proposed: it fails where rows are in the way, and reads the default under ACCESS EXCLUSIVE. The job moves them.
SELECT "table" AS object, "table" AS identity,
       CASE WHEN last IS NULL THEN 'It has no partition: every INSERT fails.'
            ELSE format('Its partitions end on %s%s.', to_char(last, 'YYYY-MM-DD HH24:MI'), CASE WHEN last < now() AT TIME ZONE 'UTC' THEN CASE WHEN has_default THEN ': today''s rows go to the default partition' ELSE ': today''s inserts fail' END ELSE ', less than one period from now' END) END AS issue,
       jsonb_build_object('covered_until', last, 'period', width::text) AS evidence,
       CASE WHEN NOT has_default THEN (SELECT string_agg(format('CREATE TABLE %I.%I PARTITION OF %s FOR VALUES FROM (%L) TO (%L);', schema, CASE WHEN octet_length(name) <= 40 THEN name ELSE left(name, 8) || '_' || substr(md5(name), 1, 6) END || '_from_' || to_char(f, 'YYYYMMDD"_"HH24MI'), "table", f || zone, lead_f || zone), E'\n' ORDER BY f)
        FROM (SELECT coalesce(last, date_trunc('month', now() AT TIME ZONE 'UTC')) + n * width AS f, coalesce(last, date_trunc('month', now() AT TIME ZONE 'UTC')) + (n + 1) * width AS lead_f FROM generate_series(0, 399) n) g
        WHERE f <= (now() AT TIME ZONE 'UTC') + 2 * width) END AS fix,
       CASE WHEN NOT has_default AND (last < now() AT TIME ZONE 'UTC' OR last IS NULL) THEN 'critical' END AS level,
       format(E'[partition]\ntable = %s\ncolumn = %s\nevery = "%s"\npremake = 3\n', to_json("table"), to_json(key::text),
              CASE WHEN width <= interval '1 hour' THEN 'hour' WHEN width <= interval '1 day' THEN 'day' WHEN width <= interval '7 days' THEN 'week' WHEN width <= interval '1 month' THEN 'month' WHEN width <= interval '3 months' THEN 'quarter' ELSE 'year' END) AS job
FROM (
    SELECT b.*, CASE WHEN with_zone THEN '+00' ELSE '' END AS zone, CASE WHEN last - first BETWEEN interval '28 days' AND interval '31 days' THEN interval '1 month'
                     WHEN last - first BETWEEN interval '90 days' AND interval '92 days' THEN interval '3 months'
                     WHEN last - first BETWEEN interval '365 days' AND interval '366 days' THEN interval '1 year'
                     WHEN last IS NULL THEN interval '1 month' ELSE last - first END AS width
    FROM (
        SELECT t."table", t.schema, t.name, a.attname AS key, a.atttypid = 'timestamptz'::regtype AS with_zone,
               (SELECT max(substring(e FROM 'TO \(''([^'']+)''\)')::timestamptz AT TIME ZONE 'UTC') FROM unnest(x.bounds) e) AS last,
               (SELECT (array_agg(substring(e FROM 'FROM \(''([^'']+)''\)')::timestamptz AT TIME ZONE 'UTC' ORDER BY substring(e FROM 'TO \(''([^'']+)''\)')::timestamptz DESC NULLS LAST))[1] FROM unnest(x.bounds) e WHERE e ~ 'TO \(''') AS first,
               EXISTS (SELECT FROM unnest(x.bounds) e WHERE e ~ 'TO \(MAXVALUE\)' OR e ~ 'infinity') AS endless,
               'DEFAULT' = ANY (x.bounds) AS has_default
        FROM tables t JOIN pg_partitioned_table p ON p.partrelid = t.oid AND p.partstrat = 'r' AND p.partnatts = 1 AND p.partattrs[0] > 0
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = p.partattrs[0] AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
        LEFT JOIN (SELECT i.inhparent, array_agg(pg_get_expr(c.relpartbound, 0)) AS bounds FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition AND c.relkind IN ('r', 'p', 'f')
                   WHERE NOT i.inhdetachpending GROUP BY i.inhparent) d ON d.inhparent = t.oid,
        LATERAL (SELECT coalesce(d.bounds, '{}') AS bounds) x
    ) b WHERE NOT endless AND NOT (has_default AND last IS NULL)
) b
WHERE last IS NULL OR last < (now() AT TIME ZONE 'UTC') + least(width, interval '1 year') AND last > (now() AT TIME ZONE 'UTC') - interval '1 year'
