SELECT format('slot %s', slot_name) AS object, slot_name::text AS identity,
       format('Slot %s (%s%s) keeps %s of WAL%s: when the disk is full, the server stops.', slot_name, slot_type, CASE WHEN active THEN '' ELSE ', inactive' END, pg_size_pretty(held), CASE WHEN wal_status IN ('unreserved', 'lost') THEN ' and has lost some that it needs' ELSE '' END) AS issue,
       jsonb_build_object('bytes', held, 'active', active, 'kind', slot_type, 'wal_status', wal_status) AS evidence,
       CASE WHEN active THEN format(E'-- its consumer is too slow; this limits the WAL that slots keep, and invalidates slots that fall further behind:\nALTER SYSTEM SET max_slot_wal_keep_size = %L;\nSELECT pg_catalog.pg_reload_conf();', '16GB')
       END AS fix,
       CASE WHEN NOT active THEN format('whether its consumer comes back. If it does, start it. If it does not, SELECT pg_catalog.pg_drop_replication_slot(%L) ends it: the replica or subscriber must then be set up again.', slot_name) END AS decide,
       CASE WHEN NOT active THEN 'none; the consumer of this slot has to be set up again' ELSE 'none' END AS lock
FROM (
    SELECT s.*, CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - s.restart_lsn AS held FROM pg_replication_slots s
) s
WHERE held >= CASE WHEN active THEN 17179869184 ELSE 268435456 END OR wal_status IN ('unreserved', 'lost')
