-- Below the amount of WAL that slot-holds-wal reports. Since 17 the server says since when, and slots that a standby keeps in step with its primary are no one's; before, only that it is so at this moment.
SELECT format('slot %s', s.slot_name) AS object, s.slot_name::text AS identity,
       format('Slot %s (%s) has no consumer%s, and keeps %s of WAL%s: both grow until it comes back.', s.slot_name, s.slot_type, coalesce(' since ' || to_char(s.since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), ' at this moment'), pg_size_pretty(s.held),
              CASE WHEN s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL THEN ', and old rows that VACUUM cannot remove' ELSE '' END) AS issue,
       jsonb_build_object('bytes', s.held, 'kind', s.slot_type, 'inactive_since', s.since, 'database', s.database) AS evidence,
       format('whether its consumer comes back. If it does, start it. If it does not, SELECT pg_catalog.pg_drop_replication_slot(%L) ends it: the replica or subscriber must then be set up again.', s.slot_name) AS decide,
       CASE WHEN s.since IS NULL THEN 'low' END AS level
FROM asked, (
    SELECT s.*, CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - s.restart_lsn AS held, (to_jsonb(s) ->> 'inactive_since')::timestamptz AS since FROM pg_replication_slots s
) s
WHERE NOT s.active AND NOT s.temporary AND s.restart_lsn IS NOT NULL AND s.wal_status NOT IN ('unreserved', 'lost') AND s.held < 268435456
  AND coalesce(to_jsonb(s) ->> 'synced', 'false') = 'false' AND (s.since IS NULL OR s.since < now() - idle_after)
