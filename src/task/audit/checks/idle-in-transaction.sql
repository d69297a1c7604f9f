-- Sessions at this moment.
SELECT format('role %I', q.usename) AS object, format('%I %s', q.usename, q.application) AS identity,
       format('%s of %I%s %s in a transaction and %s nothing, since %s: locks stay taken, and VACUUM keeps all rows that were deleted since.', CASE q.sessions WHEN 1 THEN 'A session' ELSE format('%s sessions', q.sessions) END, q.usename,
              CASE WHEN q.application <> '' THEN format(' (%s)', q.application) ELSE '' END, CASE q.sessions WHEN 1 THEN 'is' ELSE 'are' END, CASE q.sessions WHEN 1 THEN 'does' ELSE 'do' END, to_char(q.since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')) AS issue,
       jsonb_build_object('sessions', q.sessions, 'since', q.since, 'statement', q.statement) AS evidence,
       CASE WHEN q.hidden THEN format('the state of sessions of %s is hidden: GRANT pg_monitor', q.usename) END AS unknown,
       format(E'-- the last statement of each is in pg_stat_activity: find out which code leaves its transaction open\nALTER ROLE %I SET idle_in_transaction_session_timeout = ''10min'';\n%s', q.usename, q.ends) AS fix,
       CASE WHEN q.since < now() - interval '1 day' THEN 'high' END AS level
FROM (
    SELECT s.usename, regexp_replace(coalesce(s.application_name, ''), '[0-9]+', 'N', 'g') AS application, count(*) AS sessions, min(s.state_change) AS since, left((array_agg(s.query ORDER BY s.state_change))[1], 200) AS statement, bool_or(s.state IS NULL) AS hidden,
           string_agg(format('SELECT pg_catalog.pg_terminate_backend(%s);', s.pid), E'\n' ORDER BY s.pid) AS ends
    FROM asked, pg_stat_activity s
    WHERE s.datname = current_database() AND s.usename IS NOT NULL AND s.pid <> pg_backend_pid() AND s.state IN ('idle in transaction', 'idle in transaction (aborted)') AND s.state_change < now() - idle_after
    GROUP BY 1, 2
) q
