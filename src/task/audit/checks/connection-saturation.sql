SELECT 'server' AS object, 'max_connections' AS identity,
       format('%s of %s connections are in use: when none is left, new connections are refused.', used, most) AS issue,
       jsonb_build_object('used', used, 'max_connections', most, 'percent', round(100.0 * used / most)) AS evidence,
       'whether fewer connections do (a pooler such as pgbouncer, smaller pools), or the server has memory for more (max_connections, from the next restart on).' AS decide,
       CASE WHEN used >= 0.95 * most THEN 'critical' END AS level
FROM (SELECT (SELECT count(*) FROM pg_stat_activity WHERE coalesce(backend_type, 'client backend') = 'client backend' OR backend_type = 'walsender') AS used,
             current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most) s
WHERE used >= 0.8 * most
