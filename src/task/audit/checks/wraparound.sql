-- Beyond the age at which autovacuum is forced to run. At 2,000 million the server refuses writes. One finding for the whole
-- database: what holds up one table holds up all.
SELECT format('database %I', current_database()) AS object, what AS identity,
       format('%s tables have a %s that should have been frozen: the oldest, of %s, is %s million old, %s %% of the age at which the server refuses all writes.', count(*), what,
              (array_agg(relation ORDER BY age DESC, relation))[1], round(max(age) / 1e6, 1), round(max(age) / 2e7)) AS issue,
       jsonb_build_object('age', max(age), 'limit', min(allowed), 'tables', count(*), 'oldest', (array_agg(relation ORDER BY age DESC, relation))[1:5]) AS evidence,
       E'-- for the whole database; run it as a superuser or, since 17, as a member of pg_maintain\nVACUUM (FREEZE);' AS fix,
       CASE WHEN max(age) > 1000000000 THEN 'critical' END AS level
FROM (
    SELECT format('%I.%I', n.nspname, c.relname) AS relation, 'transaction' AS what, age(c.relfrozenxid)::bigint AS age, current_setting('autovacuum_freeze_max_age')::bigint AS allowed
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relfrozenxid <> '0' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
    UNION ALL
    SELECT format('%I.%I', n.nspname, c.relname), 'multixact', mxid_age(c.relminmxid)::bigint, current_setting('autovacuum_multixact_freeze_max_age')::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relminmxid <> '0' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
) r
WHERE age > 1.5 * allowed
GROUP BY what
