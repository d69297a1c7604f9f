-- On the primary what its standbys have told; on a standby what it has received and not replayed. Behind: as much WAL as max_wal_size, or
-- later than idle_after; how late a standby is that replays nothing at all, only it knows itself. A standby that is not connected is not seen here: its slot is.
SELECT s.who AS object, s.who AS identity,
       format('%s is %s: it answers with old rows, and a failover to it would take that long or lose that much.', s.who, concat_ws(' and ', pg_size_pretty(s.behind) || ' behind', date_trunc('second', s.lag)::text || ' late')) AS issue,
       jsonb_build_object('bytes', s.behind, 'lag_seconds', round(extract(epoch FROM s.lag)), 'state', s.state) AS evidence,
       CASE WHEN s.hidden THEN 'what standbys have replayed is hidden: GRANT pg_monitor' END AS unknown,
       'what holds it back: a query there that conflicts (max_standby_streaming_delay), replay that is paused (pg_wal_replay_resume()), its disk, or the network.' AS decide
FROM asked, (
    SELECT format('standby %s', coalesce(nullif(r.application_name, ''), '?')) AS who, r.state, r.replay_lag AS lag, (pg_current_wal_lsn() - r.replay_lsn)::bigint AS behind, r.state IS NULL AS hidden
    FROM (SELECT * FROM pg_stat_replication WHERE NOT pg_is_in_recovery()) r
    -- A base backup, and receivers that replay nothing.
    WHERE r.state IS NULL OR r.state IN ('streaming', 'catchup') AND r.replay_lsn IS NOT NULL
    UNION ALL
    SELECT 'this standby', 'replay', now() - pg_last_xact_replay_timestamp(), (pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn())::bigint, false
    WHERE pg_is_in_recovery() AND pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()
) s
WHERE s.hidden OR s.behind >= pg_size_bytes(current_setting('max_wal_size')) OR s.behind > 0 AND s.lag > idle_after
