-- Counts other sessions that are active, or were half a second ago, and how many of them wait for WAL to be written or for a
-- lock. Those that the role may not see count as active. The spelling of wait events changed in 17.
SELECT count(*) FILTER (WHERE is_at_work), count(*) FILTER (WHERE is_waiting)
FROM (
    SELECT coalesce(state = 'active' OR state_change > clock_timestamp() - interval '500 ms', true) AS is_at_work,
           coalesce(state = 'active' AND (wait_event_type = 'Lock' OR lower(wait_event) IN ('walwrite', 'walsync', 'walwritelock')), false)
               AS is_waiting
    FROM pg_stat_activity
    WHERE coalesce(backend_type, 'client backend') = 'client backend' AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
      AND application_name IS DISTINCT FROM 'pgtend') s
