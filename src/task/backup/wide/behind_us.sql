-- Whether a pg_dump of ours waits for a lock of one of the processes $1, directly or behind others that do. It has our name, and began after this session.
WITH RECURSIVE waits (pid) AS (
    SELECT a.pid FROM pg_catalog.pg_stat_activity a
    JOIN pg_catalog.pg_stat_activity me ON me.pid = pg_catalog.pg_backend_pid() AND me.datid = a.datid AND me.usesysid = a.usesysid
     AND me.application_name = a.application_name AND me.backend_start < a.backend_start
    WHERE a.wait_event_type = 'Lock' AND a.pid <> ALL ($1::int[])
    UNION
    SELECT b.pid FROM waits w, pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) AS b (pid) WHERE w.pid <> ALL ($1::int[])
)
SELECT EXISTS (SELECT FROM waits WHERE pid = ANY ($1::int[]))
