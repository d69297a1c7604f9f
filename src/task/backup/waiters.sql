-- Sessions that wait for a lock behind a session of ours, which holds one on the same relation: pg_dump locks every table from its start to its end.
-- Its sessions have our name.
SELECT a.pid,
       pg_catalog.format('server process %s (%s, %s) waits for %s on %s', a.pid, a.usename,
                         coalesce(nullif(a.application_name, ''), a.backend_type), l.mode, l.relation::pg_catalog.regclass) AS who,
       extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(l.waitstart, a.query_start))::pg_catalog.float8 AS seconds,
       (SELECT count(*) FROM pg_catalog.pg_locks b
        WHERE NOT b.granted AND b.relation = l.relation AND b.database = l.database AND b.pid <> l.pid) AS behind
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND NOT l.granted
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND a.application_name IS DISTINCT FROM pg_catalog.current_setting('application_name')
  AND EXISTS (
      SELECT FROM pg_catalog.pg_locks d
      JOIN pg_catalog.pg_stat_activity s ON s.pid = d.pid
      WHERE d.granted AND d.relation = l.relation AND d.database = l.database AND d.mode = 'AccessShareLock'
        AND s.application_name = pg_catalog.current_setting('application_name') AND s.usename = SESSION_USER
        AND d.pid = ANY (pg_catalog.pg_blocking_pids(l.pid)))
ORDER BY 3 DESC
