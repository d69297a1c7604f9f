-- A pool whose sessions mostly idle is larger than its load.
SELECT format('%I', usename) AS object, format('%I %s', usename, coalesce(application_name, '')) AS identity,
       format('%s holds %s sessions%s, of which %s have been idle for more than %s: each costs memory, and one of %s connections.',
              usename, count(*), CASE WHEN application_name <> '' THEN format(' (%s)', application_name) ELSE '' END, count(*) FILTER (WHERE is_idle), min(idle_after), current_setting('max_connections')) AS issue,
       jsonb_build_object('sessions', count(*), 'idle', count(*) FILTER (WHERE is_idle), 'max_connections', current_setting('max_connections')::int) AS evidence,
       CASE WHEN bool_or(hidden) THEN format('the state of %s sessions of %s is hidden: GRANT pg_monitor', count(*), usename) END AS unknown,
       format(E'-- shrink the pool in the application; or let the server end idle sessions (the pool must reconnect):\nALTER ROLE %I SET idle_session_timeout = ''10min'';', usename) AS fix
FROM (
    SELECT usename, regexp_replace(application_name, '[0-9]+', 'N', 'g') AS application_name, state IS NULL AND NOT pg_has_role('pg_read_all_stats', 'USAGE') AND usename <> current_user AS hidden,
           state = 'idle' AND state_change < now() - idle_after AS is_idle, idle_after
    FROM asked, pg_stat_activity WHERE usename IS NOT NULL AND backend_type IS DISTINCT FROM 'walsender' AND datname = current_database()
) s
WHERE NOT EXISTS (SELECT FROM pg_db_role_setting r JOIN pg_roles o ON o.oid = r.setrole, unnest(r.setconfig) v WHERE o.rolname = s.usename AND v LIKE 'idle\_session\_timeout=%' AND v <> 'idle_session_timeout=0')
GROUP BY usename, application_name
HAVING count(*) >= 10 AND (bool_or(hidden) OR count(*) FILTER (WHERE is_idle) >= 0.8 * count(*))
