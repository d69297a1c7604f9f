-- The processes of this run's pg_dumps: they have our name, began after this session, are none of the processes $1, and hold a lock on the table $2.
SELECT a.pid FROM pg_catalog.pg_stat_activity a
JOIN pg_catalog.pg_stat_activity me ON me.pid = pg_catalog.pg_backend_pid() AND me.datid = a.datid AND me.usesysid = a.usesysid
 AND me.application_name = a.application_name AND me.backend_start < a.backend_start
WHERE a.pid <> ALL ($1::int[])
  AND EXISTS (SELECT FROM pg_catalog.pg_locks l
              WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.granted AND l.relation::bigint = $2 AND l.database = a.datid)
