-- Columns of pgvector's types, each with the index that searches use.
SELECT n.nspname::text AS schema, c.relname::text AS name, a.attname::text AS "column", c.oid::bigint AS oid, c.reltuples::float8 AS rows,
       x.method, x.opclass
FROM pg_extension e
JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_type'::regclass
JOIN pg_type y ON y.oid = d.objid AND y.typname IN ('vector', 'halfvec', 'sparsevec')
JOIN pg_attribute a ON a.atttypid = y.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
  SELECT m.amname::text AS method, o.opcname::text AS opclass
  FROM pg_index i
  JOIN pg_class k ON k.oid = i.indexrelid
  JOIN pg_am m ON m.oid = k.relam AND m.amname IN ('hnsw', 'ivfflat')
  JOIN pg_opclass o ON o.oid = i.indclass[0]
  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indkey[0] = a.attnum
  ORDER BY i.indexrelid LIMIT 1) x ON true
WHERE e.extname = 'vector' AND NOT starts_with(n.nspname::text, 'pg_') AND n.nspname NOT IN ('information_schema', 'pgtend')
ORDER BY c.reltuples DESC, n.nspname, c.relname, a.attnum
LIMIT 1000
