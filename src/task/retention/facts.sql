-- Facts of a table that a deletion needs. $1: the table's oid, $2: the column's name.
WITH RECURSIVE base AS (
    -- Under all domains.
    SELECT t.oid, t.typtype, t.typbasetype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = $1::oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT t.oid, t.typtype, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
), related AS (
    -- The tables above a partition, and those below a partitioned table.
    SELECT $1::oid AS oid, true AS above
    UNION SELECT relid::oid, true FROM pg_partition_ancestors($1::oid::regclass)
    UNION SELECT relid::oid, false FROM pg_partition_tree($1::oid::regclass)
), firing AS (
    SELECT t.* FROM pg_trigger t
    WHERE t.tgrelid = $1::oid AND t.tgtype & 8 = 8
      -- Before 15, a partition's copy of its parent's trigger is called internal, as those of foreign keys are.
      AND (NOT t.tgisinternal
           OR t.tgparentid <> 0 AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't'))
)
SELECT
    c.oid::bigint AS oid,
    n.nspname::text AS schema,
    c.relname::text AS name,
    c.relkind::text AS kind,
    greatest(c.reltuples, 0)::float8 AS rows,
    (pg_relation_size(c.oid) / current_setting('block_size')::bigint)::bigint AS blocks,
    pg_total_relation_size(c.oid)::bigint AS bytes,
    (SELECT format_type(b.oid, NULL) FROM base b WHERE b.typtype <> 'd' LIMIT 1) AS column_type,
    -- A partial index has only some of the rows. Text is compared by its bytes (collation 950, "C").
    (SELECT x.indexrelid::regclass::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
     WHERE x.indrelid = c.oid AND x.indisvalid AND x.indpred IS NULL AND m.amname = 'btree' AND x.indcollation[0] IN (0, 950)
       AND x.indkey[0] = (SELECT attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0)
       AND NOT EXISTS (SELECT FROM base b WHERE b.oid = 'bpchar'::regtype)
     ORDER BY pg_relation_size(x.indexrelid) LIMIT 1) AS index,
    has_table_privilege(c.oid, 'SELECT') AS can_select,
    has_table_privilege(c.oid, 'DELETE') AS can_delete,
    -- SELECT ... FOR UPDATE needs it.
    has_table_privilege(c.oid, 'UPDATE') AS can_update,
    row_security_active(c.oid) AS row_security,
    ARRAY(SELECT format('%s (%s)', t.tgname, CASE WHEN t.tgtype & 1 = 1 THEN 'each row' ELSE 'each statement' END)
          FROM firing t WHERE t.tgenabled <> 'D' ORDER BY 1) AS triggers,
    -- Those that fire in a session like ours.
    ARRAY(SELECT format('trigger %I', t.tgname) FROM firing t WHERE t.tgenabled IN ('O', 'A')
          UNION ALL
          SELECT format('rule %I', w.rulename) FROM pg_rewrite w JOIN related r ON r.oid = w.ev_class AND r.above
          WHERE w.ev_type = '4' AND w.ev_enabled IN ('O', 'A') ORDER BY 1) AS on_delete,
    -- Deletes are published, and the subscriber could not tell which row.
    EXISTS (SELECT FROM pg_publication_tables p JOIN pg_publication q ON q.pubname = p.pubname
            WHERE p.schemaname = n.nspname AND p.tablename = c.relname AND q.pubdelete)
        AND (c.relreplident = 'n'
             OR c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary))
        AS unpublishable,
    -- Publications that pass deletes on.
    ARRAY(SELECT DISTINCT q.pubname::text FROM pg_publication_tables p JOIN pg_publication q ON q.pubname = p.pubname
          JOIN pg_namespace s ON s.nspname = p.schemaname JOIN pg_class t ON t.relnamespace = s.oid AND t.relname = p.tablename
          JOIN related r ON r.oid = t.oid WHERE q.pubdelete ORDER BY 1) AS publications
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $1::oid
