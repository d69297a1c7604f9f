-- Below a thousand rows an exact scan takes milliseconds and misses nothing.
SELECT c."table" AS object, format('%s(%I)', c."table", c."column") AS identity,
       format('%I (%s) has no ivfflat or hnsw index: each nearest-neighbour query computes %s distances.', c."column", c.full_type, c.rows) AS issue,
       jsonb_build_object('column', c."column", 'type', c.full_type, 'rows', c.rows) AS evidence,
       CASE WHEN c.atttypmod <= 0 THEN format('%s has %s rows and no dimensions: only an expression with dimensions can be indexed', c.full_type, c.rows) END AS unknown,
       format('CREATE INDEX %sON %s USING hnsw (%s);', CASE WHEN c.partitioned THEN '' ELSE 'CONCURRENTLY ' END, c."table",
              CASE WHEN c.type = 'vector' AND c.atttypmod > 2000 THEN format('(%I::%I.halfvec(%s)) %I.halfvec_cosine_ops', c."column", e.schema, c.atttypmod, e.schema)
                   ELSE format('%I %I.%I', c."column", e.schema, c.type || '_cosine_ops') END) AS fix,
       CASE WHEN c.partitioned THEN 'SHARE on the table and its partitions: writes wait until it is built' END AS lock,
       format(E'[vector_index]\ntable = %s\ncolumn = %s\nmethod = "hnsw"\nmetric = "cosine"\n', to_json(c."table"), to_json(c."column"::text)) AS job
FROM columns c JOIN pg_type y ON y.oid = c.atttypid JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = y.oid AND d.deptype = 'e'
JOIN (SELECT x.oid, n.nspname AS schema FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace WHERE x.extname = 'vector') e ON e.oid = d.refobjid
WHERE c.type IN ('vector', 'halfvec') AND c.rows >= 1000 AND c.atttypmod <= 4000
  AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = c.oid AND i.method IN ('ivfflat', 'hnsw')
                  AND (i.keys[1] = c.attnum OR pg_get_expr(i.indexprs, i.indrelid) LIKE '%' || quote_ident(c."column") || '%'))
