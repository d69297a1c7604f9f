-- What a deletion must know of a table. $1: the table's oid, $2: the column's name.
SELECT
    c.oid::bigint AS oid,
    n.nspname::text AS schema,
    c.relname::text AS name,
    c.relkind::text AS kind,
    greatest(c.reltuples, 0)::float8 AS rows,
    (pg_relation_size(c.oid) / current_setting('block_size')::bigint)::bigint AS blocks,
    pg_total_relation_size(c.oid)::bigint AS bytes,
    (SELECT format_type(atttypid, NULL) FROM pg_attribute a
     WHERE a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped) AS column_type,
    -- A partial index has only some of the rows.
    (SELECT x.indexrelid::regclass::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
     WHERE x.indrelid = c.oid AND x.indisvalid AND x.indpred IS NULL AND m.amname = 'btree'
       AND x.indkey[0] = (SELECT attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0)
     ORDER BY pg_relation_size(x.indexrelid) LIMIT 1) AS index,
    has_table_privilege(c.oid, 'SELECT') AS can_select,
    has_table_privilege(c.oid, 'DELETE') AS can_delete,
    -- SELECT FOR UPDATE asks for it.
    has_table_privilege(c.oid, 'UPDATE') AS can_update,
    row_security_active(c.oid) AS row_security,
    ARRAY(SELECT format('%s (%s)', t.tgname, CASE WHEN t.tgtype & 1 = 1 THEN 'each row' ELSE 'each statement' END)
          FROM pg_trigger t
          WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 8 = 8 AND t.tgenabled <> 'D' ORDER BY 1) AS triggers,
    -- Deletes are published, and the subscriber could not tell which row.
    EXISTS (SELECT FROM pg_publication_tables p JOIN pg_publication q ON q.pubname = p.pubname
            WHERE p.schemaname = n.nspname AND p.tablename = c.relname AND q.pubdelete)
        AND (c.relreplident = 'n'
             OR c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary))
        AS unpublishable,
    EXISTS (SELECT FROM pg_publication_tables p WHERE p.schemaname = n.nspname AND p.tablename = c.relname) AS published
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $1::oid
