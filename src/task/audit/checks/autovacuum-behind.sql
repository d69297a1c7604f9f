-- More dead rows than twice what should have started autovacuum; or a table on which it was turned off and forgotten.
SELECT coalesce(root_name, relation) AS object, relation AS identity,
       CASE WHEN dead > 2 * allowed THEN format('%s dead rows beside %s live ones, and autovacuum should have come at %s%s.', dead, live, allowed::bigint, CASE WHEN enabled THEN '' ELSE '; it is turned off' END)
            ELSE 'Autovacuum is turned off for this table: dead rows stay, statistics age, transactions are not frozen in time.' END AS issue,
       jsonb_build_object('dead_rows', dead, 'live_rows', live, 'last_autovacuum', last, 'autovacuum', enabled) AS evidence,
       CASE WHEN turned_off THEN format(E'ALTER TABLE %s RESET (autovacuum_enabled);\n', relation) ELSE '' END || format('VACUUM (ANALYZE) %s;', relation) AS fix
FROM (
    SELECT format('%I.%I', n.schema, c.relname) AS relation, (SELECT t."table" FROM partitions p JOIN tables t ON t.oid = p.root WHERE p.oid = c.oid) AS root_name,
           pg_stat_get_dead_tuples(c.oid) AS dead, pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_last_autovacuum_time(c.oid) AS last, c.reltuples,
           coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_vacuum_threshold'), current_setting('autovacuum_vacuum_threshold')::float8)
           + coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_vacuum_scale_factor'), current_setting('autovacuum_vacuum_scale_factor')::float8) * greatest(c.reltuples, 0) AS allowed,
           o.turned_off, NOT o.turned_off AND current_setting('autovacuum')::bool AS enabled
    FROM pg_class c JOIN schemas n ON n.oid = c.relnamespace,
    LATERAL (SELECT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_enabled' AND option_value IN ('false', 'off', 'no', '0')) AS turned_off) o
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
) v
WHERE (dead >= 10000 AND dead > 2 * allowed) OR (turned_off AND greatest(reltuples, live) >= 1000)
