-- Foreign keys of other tables into this one, and whether an index finds the rows that point at a deleted one.
-- $1: the table's oid.
SELECT
    k.conname::text AS name,
    k.conrelid::regclass::text AS referencing,
    k.confdeltype::text AS action,
    EXISTS (
        SELECT FROM pg_index x
        WHERE x.indrelid = k.conrelid AND x.indisvalid AND x.indpred IS NULL
          -- Its leading columns are the key's, in any order.
          AND (SELECT array_agg(attnum ORDER BY attnum)
               FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS u (attnum, position)
               WHERE position <= cardinality(k.conkey))
              = (SELECT array_agg(attnum ORDER BY attnum) FROM unnest(k.conkey) AS u (attnum))) AS indexed
FROM pg_constraint k
WHERE k.contype = 'f' AND k.confrelid = $1::oid AND k.conparentid = 0
ORDER BY 2, 1
