-- Tables of this database that no session can read now: ACCESS EXCLUSIVE is the only mode that conflicts with ACCESS SHARE, and a session that
-- waits for it blocks all that come after it.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS table,
       CASE WHEN l.granted THEN 'is locked by ' ELSE 'is asked for a lock by ' END
       || CASE WHEN a.pid IS NULL THEN pg_catalog.format('prepared transaction %L (%s, since %sZ): COMMIT PREPARED or ROLLBACK PREPARED ends it', p.gid, p.owner,
                                                         pg_catalog.to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')) ELSE
          pg_catalog.format('server process %s (%s, %s, %s%s)', a.pid, a.usename, coalesce(nullif(a.application_name, ''), a.backend_type),
                            coalesce(a.state, 'unknown state'),
                            ', since ' || pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z') END
       || CASE WHEN l.granted THEN '' ELSE ', which waits for server process '
               || coalesce(pg_catalog.array_to_string(pg_catalog.pg_blocking_pids(l.pid), ', '), '?') END AS by
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
-- These have no process.
LEFT JOIN pg_catalog.pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p') AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND (a.pid IS NOT NULL OR p.gid IS NOT NULL)
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND n.nspname NOT LIKE 'pg\_%'
ORDER BY l.granted DESC, a.xact_start, c.oid LIMIT 20
