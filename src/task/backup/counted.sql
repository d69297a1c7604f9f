-- The tables that hold the rows of each of these tables ($1): itself, or its leaves. Foreign partitions have none in a dump.
SELECT w.root, c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
FROM pg_catalog.unnest($1::pg_catalog.int8[]) AS w(root)
CROSS JOIN LATERAL (
    SELECT t.relid::pg_catalog.oid AS oid FROM pg_catalog.pg_partition_tree(w.root::pg_catalog.oid::pg_catalog.regclass) t WHERE t.isleaf
    UNION SELECT w.root::pg_catalog.oid WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_partition_tree(w.root::pg_catalog.oid::pg_catalog.regclass))
) AS leaf
JOIN pg_catalog.pg_class c ON c.oid = leaf.oid AND c.relkind = 'r'
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
