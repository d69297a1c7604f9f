-- Reads the signals that a batch may worsen. $1: the table's OID, or NULL.
SELECT
    (SELECT max(pg_wal_lsn_diff(here.lsn, replay_lsn)) FROM pg_stat_replication)::bigint AS replica_lag_bytes,
    slot.lag::bigint AS slot_lag_bytes,
    slot.slot_name::text AS slot,
    EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = $1::oid) AS autovacuum,
    (SELECT max(extract(epoch FROM clock_timestamp() - xact_start))
     FROM pg_stat_activity
     WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND backend_type = 'client backend'
       AND application_name <> 'pgtend')::float8 AS snapshot_age_seconds,
    (SELECT count(*) FROM pg_stat_activity
     WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()) AS active_sessions,
    (SELECT count(*) FROM pg_stat_activity
     WHERE coalesce(state = 'active' OR state_change > clock_timestamp() - interval '500 ms', true) AND coalesce(backend_type, 'client backend') = 'client backend' AND usesysid IS NOT NULL
       AND pid <> pg_backend_pid() AND application_name IS DISTINCT FROM 'pgtend') AS others,
    NOT pg_has_role('pg_monitor', 'USAGE') AND (current_setting('archive_mode') <> 'off'
        OR EXISTS (SELECT FROM pg_stat_replication) OR EXISTS (SELECT FROM pg_replication_slots)) AS hidden
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) here
LEFT JOIN LATERAL (
    SELECT slot_name, pg_wal_lsn_diff(here.lsn, restart_lsn) AS lag
    FROM pg_replication_slots WHERE restart_lsn IS NOT NULL ORDER BY 2 DESC LIMIT 1) slot ON true
