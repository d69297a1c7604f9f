-- A table without rows does no harm yet. A partitioned table's primary key must hold the columns of its partition key.
SELECT t."table" AS object, t."table" AS identity,
       format('%s rows and no primary key: a row cannot be identified, logical replication of UPDATE and DELETE fails, duplicates stay.', t.rows) AS issue,
       jsonb_build_object('rows', t.rows, 'bytes', t.bytes, 'unique_index', u.name) AS evidence,
       CASE WHEN u.name IS NOT NULL AND NOT t.partitioned THEN format('ALTER TABLE %s ADD PRIMARY KEY USING INDEX %I;', t."table", u.name)
            WHEN t.partitioned THEN format('ALTER TABLE %s ADD COLUMN %I uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(), ADD PRIMARY KEY (%2$I, %s);', t."table", n.free, k.columns)
            ELSE format('ALTER TABLE %s ADD COLUMN %I bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;', t."table", n.free) END AS fix,
       CASE WHEN u.name IS NOT NULL AND NOT t.partitioned THEN 'ACCESS EXCLUSIVE, for a moment' ELSE 'ACCESS EXCLUSIVE while the table is rewritten' END AS lock
FROM tables t
LEFT JOIN LATERAL (
    SELECT i.name FROM indexes i WHERE i.indrelid = t.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND NOT i.partial AND i.indexprs IS NULL AND i.method = 'btree'
      AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.oid)
      AND NOT EXISTS (SELECT FROM unnest(i.keys) k JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k WHERE NOT a.attnotnull)
      AND NOT EXISTS (SELECT FROM unnest(i.indoption::int2[]) o WHERE o <> 0)
    ORDER BY cardinality(i.keys), i.name LIMIT 1
) u ON true
LEFT JOIN LATERAL (
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY o) AS columns, bool_or(n = 0) AS has_expression
    FROM pg_partitioned_table p, unnest(p.partattrs::int2[]) WITH ORDINALITY u(n, o) LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = n WHERE p.partrelid = t.oid
) k ON true,
LATERAL (SELECT v AS free FROM (VALUES (1, 'id'), (2, 'row_id'), (3, 'pgtend_row_id')) f(o, v) WHERE NOT EXISTS (SELECT FROM columns c WHERE c.oid = t.oid AND c."column" = v) ORDER BY o LIMIT 1) n
WHERE t.rows > 0 AND NOT coalesce(k.has_expression, false)
  AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = t.oid AND i.indisprimary)
