-- Statements that ask for a few rows by IS NULL or IS NOT NULL, often, where no index has that condition. (Other constants are not in
-- pg_stat_statements: it keeps $1.)
SELECT c."table" AS object, format('%s(%I) %s', c."table", c."column", n.condition) AS identity,
       format('%s statements ask for rows where %I %s, which are %s %% of %s.', sum(q.calls)::bigint, c."column", n.condition, round(100 * n.share::numeric, 1), c."table") AS issue,
       jsonb_build_object('calls', sum(q.calls)::bigint, 'seconds', round((sum(q.total_exec_time) / 1000)::numeric, 1), 'share_percent', round(100 * n.share::numeric, 1), 'rows', c.rows) AS evidence,
       format('CREATE INDEX CONCURRENTLY ON %s (%I) WHERE %I %s;', c."table", coalesce((SELECT x."column" FROM columns x JOIN indexes i ON i.indrelid = c.oid AND i.indisprimary AND x.attnum = i.keys[1] WHERE x.oid = c.oid), c."column"), c."column", n.condition) AS fix, NULL::text AS unknown
FROM columns c
JOIN pg_stats s ON s.schemaname = c.schema AND s.tablename = c.name AND s.attname = c."column" AND NOT s.inherited,
LATERAL (SELECT CASE WHEN s.null_frac <= 0.2 THEN 'IS NULL' ELSE 'IS NOT NULL' END AS condition, CASE WHEN s.null_frac <= 0.2 THEN s.null_frac ELSE 1 - s.null_frac END AS share) n,
(SELECT query, calls, total_exec_time FROM STATEMENTS WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query ~* '^\s*(select|with|update|delete)' AND query ~* 'is\s+(not\s+)?null') q
WHERE NOT c.partitioned AND c.rows >= 1000 AND n.share <= 0.2 AND s.null_frac > 0
  AND position(lower(c.name) IN lower(q.query)) > 0
  AND q.query ~* ('(^|[^a-z0-9_])"?' || regexp_replace(c."column", '([^a-zA-Z0-9_])', '\\\1', 'g') || '"?\s+' || replace(n.condition, ' ', '\s+') || '([^a-z]|$)')
  AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = c.oid AND i.partial AND pg_get_expr(i.indpred, i.indrelid) LIKE '%' || quote_ident(c."column") || ' ' || n.condition || '%')
GROUP BY c.oid, c."table", c."column", n.condition, n.share, c.rows
HAVING sum(q.calls) >= 100
UNION ALL
SELECT 'database', 'database', NULL, NULL, NULL, format('%s statements of other roles are hidden: GRANT pg_monitor', count(*)) FROM STATEMENTS WHERE query = '<insufficient privilege>' HAVING count(*) > 0
