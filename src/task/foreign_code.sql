-- Code that others wrote and that runs with the rights of this session when a task works on a table.
-- $1: the table, by its oid; $2: events of triggers, as in pg_trigger.tgtype (4 INSERT, 8 DELETE, 16 UPDATE, 0 none); $3: events of rules, as in
-- pg_rewrite.ev_type; $4: whether rows are written, so that CHECKs are tried and generated columns computed; $5: whether triggers are silenced by
-- session_replication_role where the role may.
--
-- Expressions of indexes, of extended statistics and of partition keys run in any query of the table: the planner computes what is constant in
-- them (seen on 14 and 18: an IMMUTABLE function without arguments ran as the superuser who said SELECT count(*), and in EXPLAIN).
-- `lesser` is in rights.sql, which comes before. A function counts that somebody owns who has less rights than the session, unless it is SECURITY DEFINER: that runs as its owner. One of
-- PostgreSQL's own counts where it takes SQL, reaches files or changes the server: then the table's owner said so.
, named AS (
    SELECT c.oid, c.relkind FROM pg_catalog.pg_class c WHERE c.oid = $1::bigint::pg_catalog.oid
), tables AS (
    SELECT oid FROM named
    UNION
    -- The table behind the view of a [compress] job; partitions.
    SELECT x.oid FROM tables t, LATERAL (
        SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent = t.oid
        UNION ALL
        SELECT d.refobjid FROM pg_catalog.pg_class v JOIN pg_catalog.pg_rewrite w ON w.ev_class = v.oid JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
             AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass JOIN pg_catalog.pg_class b ON b.oid = d.refobjid AND b.relkind IN ('r', 'p') WHERE v.oid = t.oid AND v.relkind = 'v'
    ) x
), around AS (
    -- Tables whose owners may put code where our statements come by: above and below in the tree of partitions, at either end of a foreign key.
    SELECT oid FROM tables
    UNION SELECT a.relid::pg_catalog.oid FROM tables t, LATERAL pg_catalog.pg_partition_ancestors(t.oid::pg_catalog.regclass) a
    UNION SELECT k.conrelid FROM tables t JOIN pg_catalog.pg_constraint k ON k.confrelid = t.oid AND k.contype = 'f'
    UNION SELECT k.confrelid FROM tables t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f'
), reached AS (
    -- Tables whose rows go or change with ours: as their owner, with BEFORE triggers; AFTER triggers as the session before 18 (seen on 14).
    SELECT k.conrelid AS oid FROM tables t JOIN pg_catalog.pg_constraint k ON k.confrelid = t.oid AND k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd') WHERE $2::int & 8 <> 0
    UNION
    SELECT k.conrelid FROM reached t JOIN pg_catalog.pg_constraint k ON k.confrelid = t.oid AND k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd')
), firing AS (
    SELECT g.* FROM pg_catalog.pg_trigger g, me
    WHERE NOT g.tgisinternal AND g.tgenabled <> 'D'
      -- 64: INSTEAD OF, on the view of a [compress] job, which is not what the job writes to.
      AND (g.tgrelid IN (SELECT oid FROM tables) AND g.tgtype & $2::int <> 0 AND g.tgtype & 64 = 0
               AND NOT ($5::boolean AND me.rolsuper AND g.tgenabled = 'O' AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger r WHERE r.tgrelid = g.tgrelid AND r.tgenabled = 'R'))
           OR g.tgrelid IN (SELECT oid FROM reached) AND g.tgtype & 66 = 0 AND g.tgtype & 24 <> 0 AND pg_catalog.current_setting('server_version_num')::int < 180000)
), types AS (
    -- Of columns that are written, and what these are made of: a domain's CHECKs run, and a type's owner may change it.
    SELECT a.attrelid AS table_oid, a.atttypid AS type FROM tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE $4::boolean
    UNION
    SELECT t.table_oid, x.type FROM types t JOIN pg_catalog.pg_type y ON y.oid = t.type, LATERAL (
        SELECT y.typbasetype AS type UNION ALL SELECT y.typelem
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE y.oid IN (r.rngtypid, r.rngmultitypid)
    ) x WHERE x.type <> 0
), expressions AS (
    SELECT 'index' AS kind, pg_catalog.quote_ident(c.relname) AS name, i.indrelid AS table_oid, pg_catalog.concat(i.indexprs::text, i.indpred::text) AS tree
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
    UNION ALL
    SELECT 'statistics', pg_catalog.quote_ident(s.stxname), s.stxrelid, s.stxexprs::text FROM pg_catalog.pg_statistic_ext s WHERE s.stxexprs IS NOT NULL
    UNION ALL
    SELECT 'partition key', NULL, p.partrelid, p.partexprs::text FROM pg_catalog.pg_partitioned_table p WHERE p.partexprs IS NOT NULL
    UNION ALL
    SELECT 'trigger', pg_catalog.quote_ident(g.tgname), g.tgrelid, g.tgqual::text FROM firing g WHERE g.tgqual IS NOT NULL
    UNION ALL
    -- Of a partition, the planner looks at them in any query.
    SELECT 'CHECK', pg_catalog.quote_ident(k.conname), k.conrelid, k.conbin::text FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    WHERE k.contype = 'c' AND ($4::boolean OR c.relispartition)
    UNION ALL
    SELECT 'domain CHECK', pg_catalog.quote_ident(k.conname), t.table_oid, k.conbin::text FROM types t JOIN pg_catalog.pg_constraint k ON k.contypid = t.type AND k.contype = 'c'
    UNION ALL
    SELECT 'generated column', pg_catalog.quote_ident(a.attname), a.attrelid, f.adbin::text FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
    WHERE a.attgenerated <> '' AND ($4::boolean OR a.attgenerated = 'v')
    UNION ALL
    SELECT 'default', pg_catalog.quote_ident(a.attname), a.attrelid, f.adbin::text FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
    WHERE a.attgenerated = '' AND $2::int & 4 <> 0
), calls AS (
    SELECT 'trigger' AS kind, pg_catalog.quote_ident(g.tgname) AS name, g.tgrelid AS table_oid, g.tgfoid AS function FROM firing g
    UNION
    SELECT e.kind, e.name, e.table_oid, m.found[1]::pg_catalog.oid FROM expressions e, LATERAL pg_catalog.regexp_matches(e.tree, ':(?:funcid|opfuncid|winfnoid|aggfnoid) ([0-9]+)', 'g') AS m(found)
    WHERE e.table_oid IN (SELECT oid FROM tables UNION SELECT oid FROM reached)
    UNION
    SELECT e.kind, e.name, e.table_oid, o.oprcode FROM expressions e, LATERAL pg_catalog.regexp_matches(e.tree, ':opno ([0-9]+)', 'g') AS m(found), pg_catalog.pg_operator o
    WHERE e.table_oid IN (SELECT oid FROM tables UNION SELECT oid FROM reached) AND o.oid = m.found[1]::pg_catalog.oid
), foreign_code AS (
    SELECT c.kind, c.name, c.table_oid, pg_catalog.format('%I.%I', n.nspname, p.proname) AS function,
           CASE WHEN n.nspname = 'pg_catalog' THEN t.relowner ELSE p.proowner END AS owner
    FROM calls c JOIN pg_catalog.pg_proc p ON p.oid = c.function JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_class t ON t.oid = c.table_oid
    WHERE CASE WHEN n.nspname = 'pg_catalog' THEN p.provolatile <> 'i' AND p.proname ~ '^(pg_|lo_|loread|lowrite|ts_stat|ts_rewrite|set_config|setval)|_to_xml' ELSE NOT p.prosecdef END
    UNION
    SELECT 'rule', pg_catalog.quote_ident(w.rulename), w.ev_class, NULL, t.relowner
    FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class t ON t.oid = w.ev_class
    WHERE w.ev_class IN (SELECT oid FROM tables) AND w.ev_type::text = ANY ($3::text[]) AND w.ev_enabled <> 'D' AND w.rulename <> '_RETURN'
    UNION
    -- The owner itself, with or without code that can be seen: a cursor WITH HOLD, a cast, a domain, a type's function hide from all of the above.
    SELECT 'table', NULL, t.oid, NULL, t.relowner FROM around a JOIN pg_catalog.pg_class t ON t.oid = a.oid
    UNION
    -- Of the schema: it may rename it, and put another table in the place, to which our statements go by name.
    SELECT 'schema', pg_catalog.quote_ident(n.nspname), t.oid, NULL, n.nspowner FROM around a JOIN pg_catalog.pg_class t ON t.oid = a.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspowner <> t.relowner
    UNION
    SELECT 'type', pg_catalog.format('%I.%I', n.nspname, y.typname), t.oid, NULL, y.typowner FROM types x JOIN pg_catalog.pg_class t ON t.oid = x.table_oid JOIN pg_catalog.pg_type y ON y.oid = x.type
    JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace WHERE n.nspname <> 'pg_catalog' AND y.typowner <> t.relowner
), whose AS (
    -- What belongs to pg_database_owner is the database's owner's, who is its only member.
    SELECT f.kind, f.name, f.table_oid, f.function, CASE WHEN r.rolname = 'pg_database_owner' THEN d.datdba ELSE f.owner END AS owner
    FROM foreign_code f JOIN pg_catalog.pg_roles r ON r.oid = f.owner, this_database d
)
SELECT DISTINCT f.kind, f.name, pg_catalog.format('%I.%I', n.nspname, c.relname) AS "table", f.function, r.rolname::text AS owner, me.rolname::text AS runs_as,
       me.rolsuper AS is_superuser, l.only_history
FROM whose f JOIN lesser l ON l.oid = f.owner JOIN pg_catalog.pg_class c ON c.oid = f.table_oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles r ON r.oid = f.owner, me
ORDER BY 3, 1, 2, 4
