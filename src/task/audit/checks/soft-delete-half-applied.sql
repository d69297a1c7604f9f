-- Two ways to be half applied: rows that a DELETE would take along (ON DELETE CASCADE) stay alive when their parent is only marked; and a
-- schema where at least half of the entities, and at least two, can be marked, and the others cannot.
SELECT DISTINCT ON (t.oid) t."table" AS object, t."table" AS identity, reason AS issue,
       jsonb_build_object('convention', convention, 'rows', t.rows) AS evidence,
       format('whether rows of %s are marked as their parents are (ADD COLUMN %I timestamptz, and the application sets and reads it), deleted when their parent is marked, or kept on purpose.', t."table", convention) AS decide
FROM (
    WITH RECURSIVE marked AS (
        SELECT oid, schema, "table", min("column") AS "column" FROM columns
        WHERE "column" ~* '^(deleted_?at|is_?deleted|soft_?deleted|deleted)$' GROUP BY oid, schema, "table"
    ), entities AS (
        SELECT t.oid, t.schema, m.oid IS NOT NULL AS is_marked FROM tables t LEFT JOIN marked m USING (oid)
        WHERE EXISTS (SELECT FROM indexes i WHERE i.indrelid = t.oid AND i.indisprimary AND cardinality(i.keys) = 1)
          AND EXISTS (SELECT FROM columns c WHERE c.oid = t.oid AND c."column" ~* '^(updated|modified)_?(at|on)$')
    ), below AS (
        SELECT f.conrelid AS oid, m."table" AS origin FROM foreign_keys f JOIN marked m ON m.oid = f.confrelid WHERE f.confdeltype = 'c'
        UNION
        SELECT f.conrelid, b.origin FROM below b JOIN foreign_keys f ON f.confrelid = b.oid WHERE f.confdeltype = 'c'
    )
    SELECT b.oid, format('A DELETE of a row of %s also deletes rows of this table; marking it as deleted leaves them alive, and nothing marks them as deleted.', b.origin) AS reason
    FROM below b WHERE b.oid NOT IN (SELECT oid FROM marked)
      -- A table that only joins two others is seen through them.
      AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = b.oid AND i.indisprimary AND cardinality(i.keys) > 1
                      AND NOT EXISTS (SELECT FROM unnest(i.keys) k WHERE NOT EXISTS (SELECT FROM foreign_keys f WHERE f.conrelid = b.oid AND k = ANY (f.conkey))))
    UNION ALL
    SELECT e.oid, format('%s of %s entities of schema %I can be marked as deleted, and this one cannot: its rows are deleted for good.', s.marked, s.entities, e.schema)
    FROM entities e JOIN (SELECT schema, count(*) AS entities, count(*) FILTER (WHERE is_marked) AS marked FROM entities GROUP BY schema) s USING (schema)
    WHERE NOT e.is_marked AND s.marked >= 2 AND 2 * s.marked >= s.entities AND e.oid NOT IN (SELECT oid FROM marked)
) found JOIN tables t USING (oid), LATERAL (SELECT 'deleted_at'::text AS convention) c
ORDER BY t.oid, reason
