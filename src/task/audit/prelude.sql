-- The tables that the checks select from have the user's own objects. Not the system's, not those of extensions, not pgtend's own schema; a partitioned
-- table stands for its partitions. Sizes and row counts come from the catalog, which takes no lock on any table
-- (pg_get_expr does, since 18: checks that need a condition's text call it themselves).
-- $1: seconds that statistics must cover, $2: tables that a [retention] or [partition] job covers, $3: seconds after which a session of a pool idles and a
-- prepared transaction is old,
-- $4: columns that a [compress] job covers, as TABLE:NAME, $5: a store for what a proposed job archives, $6 and $7: tables that the catalog knows no size of, and
-- the bytes of their files.
WITH RECURSIVE asked AS (
    SELECT make_interval(secs => $1::float8) AS statistics_age, $2::bigint[] AS covered, make_interval(secs => $3::float8) AS idle_after, $4::text[] AS compressed, $5::text AS store,
           coalesce(pg_stat_get_db_stat_reset_time((SELECT oid FROM pg_database WHERE datname = current_database())), pg_postmaster_start_time()) AS statistics_since
), kept_by_frameworks (name, framework) AS (
    VALUES ('_prisma_migrations', 'Prisma'), ('SequelizeMeta', 'Sequelize'), ('ar_internal_metadata', 'Rails'), ('django_migrations', 'Django'), ('flyway_schema_history', 'Flyway'), ('alembic_version', 'Alembic'),
           ('databasechangelog', 'Liquibase'), ('databasechangeloglock', 'Liquibase'), ('__EFMigrationsHistory', 'Entity Framework'), ('knex_migrations', 'Knex'), ('knex_migrations_lock', 'Knex'),
           ('_sqlx_migrations', 'sqlx'), ('__diesel_schema_migrations', 'Diesel'), ('goose_db_version', 'goose')
), schemas AS (
    SELECT n.oid, n.nspname AS schema FROM pg_namespace n
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgtend') AND n.nspname NOT LIKE 'pg\_%'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
), frameworks AS (
    -- What manages a schema's tables and their names, by its table of migrations; one in `public` manages all schemas.
    SELECT s.schema, coalesce(f.framework, p.framework) AS framework
    FROM schemas s
    LEFT JOIN LATERAL (SELECT min(k.framework) AS framework FROM pg_class c JOIN kept_by_frameworks k ON k.name = c.relname WHERE c.relnamespace = s.oid AND c.relkind IN ('r', 'p')) f ON true
    LEFT JOIN LATERAL (SELECT min(k.framework) AS framework FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public' JOIN kept_by_frameworks k ON k.name = c.relname WHERE c.relkind IN ('r', 'p')) p ON true
    WHERE coalesce(f.framework, p.framework) IS NOT NULL
), partitions AS (
    -- Also those of old, which inherit and have no column of their own.
    SELECT i.inhparent AS root, i.inhrelid AS oid FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent AND p.relkind IN ('p', 'r') AND NOT p.relispartition
    WHERE NOT EXISTS (SELECT FROM pg_inherits above WHERE above.inhrelid = p.oid)
      AND (p.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.inhrelid AND a.attnum > 0 AND NOT a.attisdropped AND a.attinhcount = 0))
    UNION
    SELECT p.root, i.inhrelid FROM partitions p JOIN pg_inherits i ON i.inhparent = p.oid
), branches AS (
    -- The partitions of partitions that are partitioned themselves.
    SELECT i.inhparent AS branch, i.inhrelid AS oid FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'p' AND p.relispartition
    UNION ALL
    SELECT b.branch, i.inhrelid FROM branches b JOIN pg_inherits i ON i.inhparent = b.oid
), sizes AS (
    -- The statistics may be lost or not be there yet (reltuples = -1), and then count what came since: fewer rows, live and dead, than pages are not all rows. A row is taken for 100 bytes then, which
    -- the audit says in a note.
    SELECT c.oid, coalesce(m.bytes, c.relpages * b.block) AS bytes,
           CASE WHEN c.reltuples > 0 THEN c.reltuples WHEN m.bytes IS NULL OR (l.rows + pg_stat_get_dead_tuples(c.oid)) * b.block >= m.bytes THEN l.rows ELSE ceil(m.bytes / 100.0) END::bigint AS rows
    FROM pg_class c LEFT JOIN unnest($6::bigint[], $7::bigint[]) m(oid, bytes) ON m.oid = c.oid::bigint,
    LATERAL (SELECT current_setting('block_size')::bigint AS block) b, LATERAL (SELECT CASE WHEN c.reltuples > 0 THEN 0 ELSE pg_stat_get_live_tuples(c.oid) END AS rows) l
    WHERE c.relkind = 'r'
), leaves AS (
    SELECT p.root, sum(z.rows) AS rows, sum(z.bytes) AS bytes FROM partitions p JOIN sizes z ON z.oid = p.oid GROUP BY p.root
), tables AS (
    SELECT c.oid, s.schema, c.relname AS name, format('%I.%I', s.schema, c.relname) AS "table", c.relkind = 'p' AS partitioned,
           -- A framework's own table, which it alone changes.
           c.relname IN (SELECT k.name FROM kept_by_frameworks k) OR c.relname = 'schema_migrations' OR c.relname LIKE 'django\_%' AND EXISTS (SELECT FROM pg_class d WHERE d.relname = 'django_migrations' AND d.relnamespace = c.relnamespace) AS is_frameworks,
           c.relowner, c.relacl, c.reloptions,
           has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(s.oid, 'USAGE') AS readable,
           (coalesce(v.rows, 0) + coalesce(z.rows, 0))::bigint AS rows, coalesce(v.bytes, 0) + coalesce(z.bytes, 0) AS bytes
    FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace LEFT JOIN leaves v ON v.root = c.oid LEFT JOIN sizes z ON z.oid = c.oid
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND c.oid NOT IN (SELECT oid FROM partitions)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
), all_tables AS MATERIALIZED (
    -- With every partition as a table of its own.
    SELECT t.oid, t.oid AS root, t.schema, t.name, t."table", t.partitioned, t.readable, t.rows, t.bytes FROM tables t
    UNION ALL
    SELECT c.oid, p.root, s.schema, c.relname, format('%I.%I', s.schema, c.relname), c.relkind = 'p', has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(s.oid, 'USAGE'),
           coalesce(z.rows, b.rows, 0)::bigint, coalesce(z.bytes, b.bytes, 0)
    FROM partitions p JOIN tables t ON t.oid = p.root JOIN pg_class c ON c.oid = p.oid AND c.relkind IN ('r', 'p') JOIN schemas s ON s.oid = c.relnamespace LEFT JOIN sizes z ON z.oid = c.oid
    LEFT JOIN (SELECT r.branch, sum(z.rows) AS rows, sum(z.bytes) AS bytes FROM branches r JOIN sizes z ON z.oid = r.oid GROUP BY r.branch) b ON b.branch = c.oid
), columns AS (
    SELECT t.oid, t.schema, t.name, t."table", t.partitioned, t.is_frameworks, t.readable, t.rows, a.attnum, a.attname AS "column", a.atttypid, a.atttypmod, a.attnotnull, a.attstorage,
           a.attgenerated, a.attidentity, 
           -- A user's type may have the name of one of PostgreSQL's. Types of extensions (vector) may be in any schema.
           CASE WHEN y.typnamespace = 'pg_catalog'::regnamespace OR y.oid IN (SELECT objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND classid = 'pg_type'::regclass AND deptype = 'e') THEN y.typname::text
                ELSE format('%s.%I', y.typnamespace::regnamespace, y.typname) END AS type, format_type(a.atttypid, a.atttypmod) AS full_type, y.typcategory
    FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type y ON y.oid = a.atttypid
), indexes AS (
    SELECT i.indexrelid AS oid, i.indrelid, c.relname AS name, format('%I.%I', s.schema, c.relname) AS index, am.amname AS method, c.relkind = 'I' AS partitioned,
           (i.indkey::int2[])[0:i.indnkeyatts - 1] AS keys, (i.indkey::int2[])[0:i.indnatts - 1] AS all_keys, i.indnkeyatts, i.indnatts, i.indclass, i.indcollation, i.indoption,
           i.indisunique, i.indisprimary, i.indisexclusion, i.indimmediate, i.indisvalid, i.indisreplident, i.indisclustered, c.reloptions,
           coalesce(to_jsonb(i) ->> 'indnullsnotdistinct', 'false') AS nulls_not_distinct,
           i.indpred IS NOT NULL AS partial, i.indpred, i.indexprs,
           c.relpages::bigint * current_setting('block_size')::bigint AS bytes
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN schemas s ON s.oid = c.relnamespace JOIN pg_am am ON am.oid = c.relam
), foreign_keys AS (
    -- As they were declared, on a table or on a single partition; what partitions have of their table's key is part of it. The table referred to may be a partition or of an extension.
    SELECT k.oid, k.conname, k.conrelid, k.confrelid, k.conkey, k.confkey, k.confdeltype, k.confupdtype, k.confmatchtype, k.condeferrable, k.convalidated,
           (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY o) FROM unnest(k.conkey) WITH ORDINALITY u(n, o) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = n) AS columns,
           (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY o) FROM unnest(k.confkey) WITH ORDINALITY u(n, o) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = n) AS referenced_columns,
           format('%I.%I', n.nspname, c.relname) AS referenced, has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS referenced_readable,
           t."table", t.schema, t.name, t.root, t.partitioned, t.rows, t.readable
    FROM pg_constraint k JOIN all_tables t ON t.oid = k.conrelid JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 AND coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'true'
), hindrances AS (
    -- Objects that keep a column from getting another type.
    SELECT d.refobjid AS oid, d.refobjsubid AS attnum,
           format(E'-- in the way, to be dropped before and made again after: %s\n', translate(string_agg(DISTINCT CASE d.classid WHEN 'pg_rewrite'::regclass THEN 'view ' || (SELECT w.ev_class::regclass::text FROM pg_rewrite w WHERE w.oid = d.objid)
                                                                    ELSE pg_describe_object(d.classid, d.objid, 0) END, ', '), E'\n\r', '  ')) AS remark
    FROM pg_depend d JOIN tables t ON t.oid = d.refobjid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
      AND (d.classid IN ('pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_publication_rel'::regclass)
           OR d.classid = 'pg_attrdef'::regclass AND NOT EXISTS (SELECT FROM pg_attrdef x WHERE x.oid = d.objid AND x.adrelid = d.refobjid AND x.adnum = d.refobjsubid)
           OR d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = d.objid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)))
    GROUP BY d.refobjid, d.refobjsubid
)
