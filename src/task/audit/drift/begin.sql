-- The facts of a schema: one row for each object, each fact of it by its name. Two databases with the same facts have the same `pg_dump --schema-only`.
-- Left out: what extensions made, pgtend's own schema, temporary tables, connection strings of subscriptions (they hold passwords), security labels,
-- and rights on PostgreSQL's own objects. docs/audit.md says so.
--
-- Each list below has: `rank` (objects can be created in this order), `kind`, `name`, `parent` (the table that it belongs to), its place in the catalog, `address` (as in COMMENT ON),
-- `granted` (as in GRANT, after the rights), `is_inner` (it comes and goes with another object: only differences are reported), `facts`, `create`, and `sets`: for a fact, the statement
-- that gives the object this value.
WITH schemas AS (
    SELECT n.oid, n.nspname AS schema, n.nspowner, n.nspacl FROM pg_namespace n
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgtend') AND n.nspname NOT LIKE 'pg\_%'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
), members AS (
    -- Of an extension, or made with a type: constructors of ranges, and their casts.
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e' OR deptype = 'i' AND classid IN ('pg_proc'::regclass, 'pg_cast'::regclass)
), relations AS (
    SELECT c.*, s.schema, format('%I.%I', s.schema, c.relname) AS name,
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' ELSE 'TABLE' END AS word,
           (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(c.reloptions) o) AS options,
           (SELECT spcname FROM pg_tablespace p WHERE p.oid = c.reltablespace) AS tablespace
    FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND NOT EXISTS (SELECT FROM members m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
), owned AS (
    -- Everything that has an owner or rights, with the kind of its default rights.
    SELECT 'pg_class'::regclass AS classid, oid, 0 AS subid, relowner AS owner, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" AS kind, relacl AS acl
    FROM relations WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
    UNION ALL
    SELECT 'pg_class'::regclass, r.oid, a.attnum::int, r.relowner, NULL::"char", a.attacl FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid WHERE r.relkind IN ('r', 'p', 'f', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT 'pg_namespace'::regclass, oid, 0, nspowner, 'n', nspacl FROM schemas
    UNION ALL SELECT 'pg_proc'::regclass, oid, 0, proowner, 'f', proacl FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'pg_type'::regclass, oid, 0, typowner, 'T', typacl FROM pg_type WHERE oid >= 16384
    UNION ALL SELECT 'pg_language'::regclass, oid, 0, lanowner, 'l', lanacl FROM pg_language WHERE oid >= 16384
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, 0, fdwowner, 'F', fdwacl FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 0, srvowner, 'S', srvacl FROM pg_foreign_server
    UNION ALL SELECT 'pg_collation'::regclass, oid, 0, collowner, NULL, NULL FROM pg_collation WHERE oid >= 16384
    UNION ALL SELECT 'pg_conversion'::regclass, oid, 0, conowner, NULL, NULL FROM pg_conversion WHERE oid >= 16384
    UNION ALL SELECT 'pg_operator'::regclass, oid, 0, oprowner, NULL, NULL FROM pg_operator WHERE oid >= 16384
    UNION ALL SELECT 'pg_opclass'::regclass, oid, 0, opcowner, NULL, NULL FROM pg_opclass WHERE oid >= 16384
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, 0, opfowner, NULL, NULL FROM pg_opfamily WHERE oid >= 16384
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 0, stxowner, NULL, NULL FROM pg_statistic_ext
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, 0, cfgowner, NULL, NULL FROM pg_ts_config WHERE oid >= 16384
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, 0, dictowner, NULL, NULL FROM pg_ts_dict WHERE oid >= 16384
    UNION ALL SELECT 'pg_publication'::regclass, oid, 0, pubowner, NULL, NULL FROM pg_publication
    UNION ALL SELECT 'pg_event_trigger'::regclass, oid, 0, evtowner, NULL, NULL FROM pg_event_trigger
    UNION ALL SELECT 'pg_subscription'::regclass, oid, 0, subowner, NULL, NULL FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
), rights AS (
    -- What others than the owner may do, and what the owner took from itself. Who granted it is not compared.
    SELECT classid, oid, subid, jsonb_agg(entry ORDER BY entry) AS entries
    FROM (
        SELECT o.classid, o.oid, o.subid,
               format('%s TO %s%s', x.privilege_type, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, CASE WHEN bool_or(x.is_grantable) THEN ' WITH GRANT OPTION' ELSE '' END) AS entry
        FROM owned o, aclexplode(coalesce(o.acl, acldefault(o.kind, o.owner))) x
        WHERE x.grantee <> o.owner GROUP BY o.classid, o.oid, o.subid, x.grantee, x.privilege_type
        UNION ALL
        SELECT o.classid, o.oid, o.subid, format('no %s for the owner', d.privilege_type)
        FROM owned o, aclexplode(acldefault(o.kind, o.owner)) d
        WHERE o.acl IS NOT NULL AND d.grantee = o.owner AND NOT EXISTS (SELECT FROM aclexplode(o.acl) x WHERE x.grantee = o.owner AND x.privilege_type = d.privilege_type)
    ) e
    GROUP BY classid, oid, subid
), columns AS (
    SELECT r.oid, r.name AS "table", r.relkind, r.relispartition, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attidentity, a.attgenerated, a.attinhcount, a.attnotnull,
           a.attoptions, a.attfdwoptions, nullif(a.attstattarget, -1) AS target,
           CASE WHEN a.attcollation <> y.typcollation THEN (SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) END AS collation,
           pg_get_expr(d.adbin, d.adrelid) AS value,
           'NOT NULL' || CASE WHEN k.connoinherit THEN ' NO INHERIT' ELSE '' END || CASE WHEN NOT k.convalidated THEN ' NOT VALID' ELSE '' END AS not_null,
           -- NULL: that of its type.
           CASE WHEN a.attstorage <> y.typstorage THEN CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END AS storage,
           CASE y.typstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END AS default_storage,
           CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END AS compression
    FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type y ON y.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_constraint k ON k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
    WHERE r.relkind IN ('r', 'p', 'f', 'v', 'm', 'c')
), defined AS (
    -- A column as CREATE TABLE writes it.
    SELECT oid, attnum, attname, attinhcount = 0 OR relispartition AS has_place,
           type || coalesce(' COLLATE ' || columns.collation, '')
           || CASE WHEN attgenerated = 's' THEN format(' GENERATED ALWAYS AS (%s) STORED', value)
                   WHEN attgenerated = 'v' THEN format(' GENERATED ALWAYS AS (%s)', value)
                   WHEN value IS NOT NULL THEN ' DEFAULT ' || value ELSE '' END
           || CASE attidentity WHEN 'a' THEN ' GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN ' GENERATED BY DEFAULT AS IDENTITY' ELSE '' END
           || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END AS definition
    FROM columns
), bodies AS (
    -- Once for all tables: a subquery for each reads all columns each time (5 s for 2,000 tables).
    -- A column that is inherited has its place by its parent: a dump puts it first.
    SELECT oid, string_agg(format(E'\n    %I %s', attname, definition), ',' ORDER BY attnum) || E'\n' AS body, jsonb_agg(attname ORDER BY attnum) FILTER (WHERE has_place) AS ordered FROM defined GROUP BY oid
), attached AS (
    SELECT i.inhrelid AS oid, string_agg(format('%I.%I', n.nspname, p.relname), ', ' ORDER BY i.inhseqno) AS parents
    FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace GROUP BY i.inhrelid
), above (oid, root) AS (
    -- The table at the top of each partition.
    SELECT r.oid, (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_partition_root(r.oid)) FROM relations r WHERE r.relispartition AND r.relkind IN ('r', 'p', 'f')
), indexed AS (
    SELECT i.*, r.relname, r.name AS index, r.options, r.tablespace, r.relnamespace, t.name AS "table", t.relkind AS of_kind
    FROM pg_index i JOIN relations r ON r.oid = i.indexrelid JOIN relations t ON t.oid = i.indrelid
