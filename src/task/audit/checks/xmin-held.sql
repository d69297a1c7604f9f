-- Who holds the oldest transaction that VACUUM has to respect, when that is further back than a twentieth of autovacuum_freeze_max_age (10 million
-- transactions by default). Only the oldest: with it gone, the next one shows.
SELECT h.who AS object, h.kind AS identity,
       format('%s keeps VACUUM, in all databases of the server or in this one, from removing any row that was deleted in the last %s transactions: tables and indexes grow, and in the end the server refuses writes.', h.who, h.age) AS issue,
       jsonb_build_object('kind', h.kind, 'transactions', h.age, 'since', h.since) AS evidence, h.fix
FROM (
    SELECT 'session' AS kind, format('The session %s of %s (%s)', pid, coalesce(usename, '?'), coalesce(nullif(application_name, ''), backend_type, 'no name')) AS who, age(backend_xmin)::bigint AS age, xact_start AS since,
           format(E'-- read its statement in pg_stat_activity first\nSELECT pg_catalog.pg_terminate_backend(%s);', pid) AS fix
    FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND backend_type NOT IN ('walsender', 'autovacuum worker')
    UNION ALL
    SELECT 'slot ' || slot_name, format('The replication slot %s%s', slot_name, CASE WHEN active THEN '' ELSE ', which is inactive,' END), greatest(age(xmin), age(catalog_xmin))::bigint, NULL,
           CASE WHEN NOT active THEN format(E'-- only if its consumer will not come back: it must then be set up again\nSELECT pg_catalog.pg_drop_replication_slot(%L);', slot_name) END
    FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
    UNION ALL
    SELECT 'prepared transaction ' || gid, format('The prepared transaction %L', gid), age(transaction)::bigint, prepared, format(E'-- ask its transaction manager first; in its database\nROLLBACK PREPARED %L;', gid) FROM pg_prepared_xacts
    UNION ALL
    SELECT 'replica', format('A query on the replica %s (hot_standby_feedback)', coalesce(nullif(application_name, ''), client_addr::text, '?')), age(backend_xmin)::bigint, NULL, NULL FROM pg_stat_replication WHERE backend_xmin IS NOT NULL
) h
WHERE h.age >= current_setting('autovacuum_freeze_max_age')::bigint / 20
ORDER BY h.age DESC LIMIT 1
