-- More dead rows than twice the threshold of autovacuum; or a table on which it is turned off.
SELECT coalesce(root_name, relation) AS object, coalesce(root_name, relation) AS identity,
       CASE WHEN bool_or(is_behind) THEN format('%s dead rows and %s live ones%s; autovacuum should have started at %s dead rows%s.', sum(dead), sum(live), CASE WHEN max(root_name) IS NOT NULL THEN format(' in %s partitions', count(*)) ELSE '' END,
                                                sum(allowed)::bigint, CASE WHEN bool_and(enabled) THEN '' ELSE '; it is turned off' END)
            ELSE format('Autovacuum is turned off for %s: dead rows stay, statistics become outdated, and old rows are not frozen in time.', CASE WHEN max(root_name) IS NOT NULL THEN format('%s of its partitions', count(*)) ELSE 'this table' END) END AS issue,
       jsonb_build_object('dead_rows', sum(dead), 'live_rows', sum(live), 'last_autovacuum', max(last), 'autovacuum', bool_and(enabled)) AS evidence,
       string_agg(CASE WHEN turned_off THEN format(E'ALTER TABLE %s RESET (autovacuum_enabled);\n', relation) ELSE '' END || format('VACUUM (ANALYZE) %s;', relation), E'\n' ORDER BY relation) AS fix,
       CASE WHEN pg_is_in_recovery() THEN 'this is a replica: dead rows are not counted here' END AS unknown
FROM (SELECT v.*, coalesce(dead >= 10000 AND dead > 2 * allowed, false) AS is_behind FROM (
    SELECT format('%I.%I', n.schema, c.relname) AS relation, (SELECT t."table" FROM partitions p JOIN tables t ON t.oid = p.root WHERE p.oid = c.oid) AS root_name,
           pg_stat_get_dead_tuples(c.oid) AS dead, pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_last_autovacuum_time(c.oid) AS last, c.reltuples,
           coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_vacuum_threshold'), current_setting('autovacuum_vacuum_threshold')::float8)
           + coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_vacuum_scale_factor'), current_setting('autovacuum_vacuum_scale_factor')::float8) * greatest(c.reltuples, 0) AS allowed,
           o.turned_off, NOT o.turned_off AND current_setting('autovacuum')::bool AS enabled
    FROM pg_class c JOIN schemas n ON n.oid = c.relnamespace,
    LATERAL (SELECT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_enabled' AND option_value IN ('false', 'off', 'no', '0')) AS turned_off) o
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
) v) v
WHERE is_behind OR (turned_off AND greatest(reltuples, live) >= 1000) OR pg_is_in_recovery()
GROUP BY coalesce(root_name, relation)
