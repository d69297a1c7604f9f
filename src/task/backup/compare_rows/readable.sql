-- Of each of these relations ($1): how large it is, and the first column whose text may be another one for the same value; NULL: there is none. $2: true if this
-- server is of another major version than the one that wrote the dump. $3: true if this database has another lc_ctype than that of the dump.
WITH RECURSIVE used (relation, number, type) AS (
    -- A dump has no generated columns.
    SELECT a.attrelid, a.attnum, a.atttypid
    FROM pg_catalog.unnest($1::pg_catalog.int8[]) AS w (oid)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = w.oid::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    UNION
    -- What a domain, an array, a row and a range are made of.
    SELECT u.relation, u.number, part.type
    FROM used u
    JOIN pg_catalog.pg_type t ON t.oid = u.type
    CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT t.typelem WHERE t.typelem <> 0 AND t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                  WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.typtype = 'r' AND r.rngtypid = t.oid
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.typtype = 'm' AND r.rngmultitypid = t.oid
    ) AS part (type)
), doubtful AS (
    SELECT DISTINCT ON (u.relation) u.relation,
           pg_catalog.format('column %I has values of type %s', a.attname, pg_catalog.format_type(t.oid, NULL)) AS said
    FROM used u
    JOIN pg_catalog.pg_type t ON t.oid = u.type
    JOIN pg_catalog.pg_attribute a ON a.attrelid = u.relation AND a.attnum = u.number
    WHERE NOT (
        t.typtype IN ('d', 'e')
        -- The C library's isspace() decides which of their parts stand in quotes (record_out, range_out), so another locale may write them in another way.
        OR t.typtype IN ('c', 'm', 'r') AND NOT $3
        OR t.typelem <> 0 AND t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
        OR t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.oid < 16384 AND t.typname IN (
            'bit', 'bool', 'box', 'bpchar', 'bytea', 'cid', 'cidr', 'circle', 'date', 'float4', 'float8', 'inet', 'int2', 'int4', 'int8', 'interval',
            'json', 'jsonb', 'line', 'lseg', 'macaddr', 'macaddr8', 'name', 'numeric', 'oid', 'path', 'pg_lsn', 'pg_snapshot', 'point', 'polygon',
            'refcursor', 'text', 'tid', 'time', 'timestamp', 'timestamptz', 'timetz', 'tsvector', 'txid_snapshot', 'uuid', 'varbit', 'varchar', 'xid', 'xid8')
        -- Since PostgreSQL 16, it writes bytes above 127 in another way.
        OR t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.typname = 'char' AND NOT $2
        OR t.typtype = 'b' AND t.typname IN ('vector', 'halfvec', 'sparsevec', 'citext', 'hstore', 'ltree') AND EXISTS (
            SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
            WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e'
              AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.extname IN ('vector', 'citext', 'hstore', 'ltree'))
    )
    ORDER BY u.relation, u.number
)
SELECT w.oid,
       CASE WHEN m.amname = 'heap' THEN pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int8 END AS pages,
       coalesce(pg_catalog.pg_table_size(c.oid), 0) AS bytes,
       d.said AS doubtful
FROM pg_catalog.unnest($1::pg_catalog.int8[]) AS w (oid)
JOIN pg_catalog.pg_class c ON c.oid = w.oid::pg_catalog.oid
LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
LEFT JOIN doubtful d ON d.relation = c.oid
