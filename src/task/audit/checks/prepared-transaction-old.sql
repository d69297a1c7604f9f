-- It can be ended only in the database where it was prepared. Its locks have the number that its session had, and '-1/' before its own after a restart.
SELECT format('prepared transaction %L', gid) AS object, gid AS identity,
       format('%L of %s was prepared %s ago and never ended%s: only COMMIT PREPARED or ROLLBACK PREPARED ends it, a restart does not, and until then VACUUM cannot remove rows that were visible when it began.', gid, owner,
              CASE WHEN age >= interval '1 day' THEN round(extract(epoch FROM age) / 86400) || ' days' WHEN age >= interval '1 hour' THEN round(extract(epoch FROM age) / 3600) || ' hours'
                   ELSE round(extract(epoch FROM age) / 60) || ' minutes' END,
              CASE WHEN cardinality(tables) > 0 THEN format('; it holds locks on %s', array_to_string(tables[1:5], ', ') || CASE WHEN cardinality(tables) > 5 THEN format(' and %s more', cardinality(tables) - 5) ELSE '' END) ELSE '' END) AS issue,
       jsonb_build_object('prepared', prepared, 'owner', owner, 'tables', tables[1:20], 'transactions_since', age(transaction)) AS evidence,
       'COMMIT or ROLLBACK: its transaction manager knows which. ROLLBACK PREPARED discards its changes for good. Its owner or a superuser may run it.' AS decide,
       format('<COMMIT OR ROLLBACK> PREPARED %L;', gid) AS draft,
       CASE WHEN age >= interval '1 day' THEN 'critical' END AS level
FROM (
    SELECT p.*, now() - p.prepared AS age,
           ARRAY(SELECT DISTINCT l.relation::regclass::text FROM pg_locks x JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction
                 JOIN pg_class c ON c.oid = l.relation AND c.relkind IN ('r', 'p', 'm')
                 WHERE x.pid IS NULL AND x.locktype = 'transactionid' AND x.transactionid = p.transaction AND l.pid IS NULL AND l.locktype = 'relation' AND l.granted
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1) AS tables
    FROM asked, pg_prepared_xacts p WHERE p.database = current_database() AND p.prepared < now() - idle_after
) p
