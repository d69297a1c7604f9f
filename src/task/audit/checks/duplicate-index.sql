-- Same columns, order, operators, condition and kind. The one that most depends on is kept: part of an index of the partitioned table, primary key, target of
-- foreign keys, constraint. Partitions may have indexes of their own; the parts of an index of their table come and go with it.
SELECT d."table" AS object, d.index AS identity,
       format('%s is the same as %s: every write maintains both, and queries need only one.', d.index, d.kept) AS issue,
       jsonb_build_object('index', d.name, 'same_as', d.kept, 'bytes', d.bytes) AS evidence,
       CASE WHEN d.constraint_name IS NOT NULL THEN format('ALTER TABLE %s DROP CONSTRAINT %I;', d."table", d.constraint_name)
            WHEN d.partitioned THEN format('DROP INDEX %s;', d.index) ELSE format('DROP INDEX CONCURRENTLY %s;', d.index) END AS fix,
       CASE WHEN d.constraint_name IS NOT NULL OR d.partitioned THEN 'ACCESS EXCLUSIVE, for a moment' END AS lock
FROM (
    SELECT i.*, t."table", first_value(i.index) OVER same AS kept, row_number() OVER same AS place, k.conname AS constraint_name, h.inhrelid IS NOT NULL AS is_part, r.conindid IS NOT NULL AS is_referenced
    FROM indexes i JOIN all_tables t ON t.oid = i.indrelid LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
    LEFT JOIN pg_inherits h ON h.inhrelid = i.oid LEFT JOIN (SELECT DISTINCT conindid FROM pg_constraint WHERE contype = 'f') r ON r.conindid = i.oid
    WHERE i.indisvalid AND NOT i.indisexclusion
    WINDOW same AS (PARTITION BY i.indrelid, i.method, i.all_keys::text, i.indnkeyatts, i.indclass::text, i.indcollation::text, i.indoption::text, pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid), i.indimmediate, i.nulls_not_distinct, CASE WHEN i.method NOT IN ('btree', 'hash') THEN i.reloptions::text END
                    ORDER BY h.inhrelid IS NOT NULL DESC, i.indisprimary DESC, r.conindid IS NOT NULL DESC, i.indisreplident DESC, k.conname IS NOT NULL DESC, i.indisunique DESC, i.name)
) d
WHERE d.place > 1 AND NOT d.is_part AND NOT d.is_referenced AND NOT d.indisreplident AND NOT d.indisprimary
