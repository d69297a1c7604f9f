-- pgvector's rule: rows / 1000 up to a million rows, sqrt(rows) above. A quarter or four times that is far from it; a number that a [vector_index] job has
-- measured against others is better founded than the rule (999 for 100,000 rows: docs/benchmarks.md), and the job watches growth.
SELECT t."table" AS object, i.index AS identity,
       format('%s has %s lists for %s rows; pgvector''s rule says %s.', i.index, lists, t.rows, wanted) AS issue,
       jsonb_build_object('index', i.name, 'lists', lists, 'rows', t.rows, 'rule', wanted) AS evidence,
       format(E'ALTER INDEX %s SET (lists = %s);\nREINDEX INDEX CONCURRENTLY %1$s;', i.index, wanted) AS fix,
       (SELECT format(E'[vector_index]\ntable = %s\ncolumn = %s\nindex = %s\nmethod = "ivfflat"\nmetric = "%s"\nlists = "auto"\n', to_json(t."table"), to_json(a.attname::text), to_json(i.name::text),
                      CASE WHEN o.opcname LIKE '%\_l2\_ops' THEN 'l2' WHEN o.opcname LIKE '%\_ip\_ops' THEN 'inner_product' WHEN o.opcname LIKE '%hamming%' THEN 'hamming' ELSE 'cosine' END)
        FROM pg_attribute a JOIN pg_opclass o ON o.oid = i.indclass[0] WHERE a.attrelid = t.oid AND a.attnum = i.keys[1]) AS job
FROM indexes i JOIN tables t ON t.oid = i.indrelid,
LATERAL (SELECT coalesce((SELECT option_value::int FROM pg_options_to_table(i.reloptions) WHERE option_name = 'lists'), 100) AS lists) l,
LATERAL (SELECT greatest(10, CASE WHEN t.rows <= 1000000 THEN t.rows / 1000 ELSE sqrt(t.rows) END)::int AS wanted) w
WHERE i.method = 'ivfflat' AND i.indisvalid AND t.rows >= 1000 AND (lists > 4 * wanted OR lists < wanted / 4)
  AND coalesce(obj_description(i.oid, 'pg_class'), '') NOT LIKE '%pgtend: {%"tuned":true%'
