-- Indexes of a table by methods that may be pgvector's, on one column or on one expression. $1: oid of the table.
SELECT x.oid::bigint AS oid, n.nspname::text AS schema, x.relname::text AS name, am.amname::text AS method, o.opcname::text AS operator_class,
       i.indkey[0]::int AS attribute, pg_get_expr(i.indexprs, i.indrelid) AS expression, pg_get_expr(i.indpred, i.indrelid) AS predicate,
       i.indisvalid AS is_valid, coalesce(x.reloptions, '{}') AS options, pg_relation_size(x.oid) AS bytes,
       s.spcname::text AS tablespace, obj_description(x.oid, 'pg_class') AS comment,
       EXISTS (SELECT FROM pg_inherits WHERE inhrelid = x.oid) AS is_attached,
       -- The columns that its expression or its predicate read.
       ARRAY(SELECT DISTINCT d.refobjsubid::int4 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid AND d.objsubid = 0
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid > 0) AS columns,
       EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_opclass'::regclass AND d.objid = o.oid
               AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'vector') AS is_by_pgvector
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
JOIN pg_am am ON am.oid = x.relam JOIN pg_opclass o ON o.oid = i.indclass[0]
LEFT JOIN pg_tablespace s ON s.oid = x.reltablespace
WHERE i.indrelid = $1::bigint::oid AND i.indnatts = 1 AND am.amname IN ('ivfflat', 'hnsw') AND x.relkind = 'i'
ORDER BY x.relname
