-- A table without rows does no harm yet. NOT NULL columns that are unique become the key: of an index by itself, of a constraint by a second index that takes
-- its place, because a constraint's own index cannot change hands. Which other columns tell rows apart only a person knows. A partitioned table's key
-- must hold the columns of its partition key.
SELECT t."table" AS object, t."table" AS identity,
       format('%s rows and no primary key: a row cannot be identified, logical replication of UPDATE and DELETE fails, duplicates stay.', t.rows) AS issue,
       jsonb_build_object('rows', t.rows, 'bytes', t.bytes, 'unique', u.columns) AS evidence,
       CASE WHEN u.name IS NULL THEN NULL
            WHEN t.partitioned THEN format('ALTER TABLE %s ADD PRIMARY KEY (%s)%s;', t."table", u.columns, CASE WHEN NOT u.is_referenced THEN format(', DROP CONSTRAINT %I', u.constraint_name) END)
            WHEN u.constraint_name IS NULL THEN format('ALTER TABLE %s ADD PRIMARY KEY USING INDEX %I;', t."table", u.name)
            ELSE format(E'-- a build that fails leaves an invalid index of that name, which has to be dropped before the next\nCREATE UNIQUE INDEX CONCURRENTLY %1$I ON %2$s (%3$s);\nALTER TABLE %2$s ADD PRIMARY KEY USING INDEX %1$I%4$s;',
                        w.name, t."table", u.columns, CASE WHEN NOT u.is_referenced THEN format(', DROP CONSTRAINT %I', u.constraint_name) END)
       END AS fix,
       CASE WHEN u.name IS NULL THEN 'ACCESS EXCLUSIVE while the table is rewritten, for a new column; while an index is built, for columns that are there'
            WHEN t.partitioned THEN 'ACCESS EXCLUSIVE while an index is built on each partition' ELSE 'ACCESS EXCLUSIVE, for a moment' END AS lock,
       CASE WHEN u.name IS NULL THEN format('which columns tell its rows apart. If some do, make them NOT NULL and the primary key%s. If none do, add an identity column, which rewrites the table (ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY).',
                                            CASE WHEN t.partitioned THEN format(', together with %s of the partition key', k.columns) END) END AS decide
FROM tables t
LEFT JOIN LATERAL (
    SELECT i.name, c.conname AS constraint_name, EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = i.oid) OR i.indisreplident OR i.indisclustered AS is_referenced,
           (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY o) FROM unnest(i.keys) WITH ORDINALITY k(n, o) JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.n) AS columns
    FROM indexes i LEFT JOIN pg_constraint c ON c.conindid = i.oid AND c.conrelid = t.oid AND c.contype = 'u'
    WHERE i.indrelid = t.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND NOT i.partial AND i.indexprs IS NULL AND i.method = 'btree' AND NOT i.indisexclusion AND i.nulls_not_distinct = 'false'
      AND NOT EXISTS (SELECT FROM unnest(i.keys) k JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k WHERE NOT a.attnotnull)
      AND NOT EXISTS (SELECT FROM unnest(i.indoption::int2[]) o WHERE o <> 0)
    ORDER BY c.conname IS NOT NULL, cardinality(i.keys), i.name LIMIT 1
) u ON true
LEFT JOIN LATERAL (
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY o) AS columns, bool_or(n = 0) AS has_expression
    FROM pg_partitioned_table p, unnest(p.partattrs::int2[]) WITH ORDINALITY u(n, o) LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = n WHERE p.partrelid = t.oid
) k ON true,
LATERAL (SELECT CASE WHEN octet_length(t.name) <= 50 AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = t.schema AND c.relname = t.name || '_pkey') THEN t.name || '_pkey'
                     ELSE 'pgtend_' || substr(md5(t.name), 1, 12) || '_pkey' END AS name) w
WHERE t.rows > 0 AND NOT t.is_frameworks AND NOT coalesce(k.has_expression, false)
  AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = t.oid AND i.indisprimary)
