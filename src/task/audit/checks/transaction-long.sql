-- Statements at this moment, in a transaction that is older than six times idle_after (an hour by default). Not those that idle (idle-in-transaction), nor maintenance and dumps, which take as long as they take.
SELECT format('role %I', q.usename) AS object, format('%I %s', q.usename, q.application) AS identity,
       format('A statement of %I%s runs in a transaction that began %s: VACUUM keeps all rows that were deleted since, in every table.', q.usename, CASE WHEN q.application <> '' THEN format(' (%s)', q.application) ELSE '' END, to_char(q.since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')) AS issue,
       jsonb_build_object('sessions', q.sessions, 'since', q.since, 'statement', q.statement) AS evidence,
       CASE WHEN q.hidden THEN format('the state of sessions of %s is hidden: GRANT pg_monitor', q.usename) END AS unknown,
       format(E'-- read its statement first: pg_stat_activity has it\n%s', q.ends) AS fix
FROM (
    SELECT s.usename, regexp_replace(coalesce(s.application_name, ''), '[0-9]+', 'N', 'g') AS application, count(*) AS sessions, min(s.xact_start) AS since, left((array_agg(s.query ORDER BY s.xact_start))[1], 200) AS statement, bool_or(s.state IS NULL) AS hidden,
           string_agg(format('SELECT pg_catalog.pg_cancel_backend(%s);', s.pid), E'\n' ORDER BY s.pid) AS ends
    FROM asked, pg_stat_activity s
    WHERE s.datname = current_database() AND s.usename IS NOT NULL AND s.pid <> pg_backend_pid() AND s.backend_type = 'client backend' AND s.state = 'active' AND s.xact_start < now() - 6 * idle_after
      AND coalesce(s.application_name, '') !~* '^(pg_dump|pg_restore|pg_basebackup|pgtend|pg_repack|pg_recvlogical|barman|pgbackrest|wal-g)' AND s.query !~* '^\s*(vacuum|analyze|reindex|cluster|copy|create\s+(unique\s+)?index|refresh\s+materialized|alter\s+table)'
    GROUP BY 1, 2
) q
