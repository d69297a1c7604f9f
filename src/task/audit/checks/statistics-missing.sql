-- Autovacuum analyzes the partitions and never the table itself. Since 14 the catalog says of such a table whether it ever was.
SELECT t."table" AS object, t."table" AS identity,
       format('%s has never been analyzed as a whole: autovacuum analyzes its partitions alone, and for queries over several of them the planner guesses.', t."table") AS issue,
       jsonb_build_object('rows', t.rows, 'partitions', (SELECT count(*) FROM partitions p JOIN pg_class l ON l.oid = p.oid AND l.relkind = 'r' WHERE p.root = t.oid)) AS evidence,
       CASE WHEN current_setting('server_version_num')::int >= 180000 THEN format('ANALYZE ONLY %s;', t."table") ELSE format('ANALYZE %s;', t."table") END AS fix,
       format(E'# and again when what is in it has changed\n[sql]\nstatements = [%s]\n', to_json(format('ANALYZE %s', t."table"))) AS job
FROM tables t JOIN pg_class c ON c.oid = t.oid
WHERE t.partitioned AND c.reltuples < 0 AND t.rows >= 10000
