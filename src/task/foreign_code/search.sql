-- Code that others wrote and that runs with the rights of this session when a task works on a table.
-- $1: the table, by its oid; $2: events of triggers, as in pg_trigger.tgtype (4 INSERT, 8 DELETE, 16 UPDATE, 0 none); $3: events of rules, as in
-- pg_rewrite.ev_type; $4: whether rows are written, so that CHECKs are tried and generated columns computed; $5: whether triggers are silenced by
-- session_replication_role where the role may; $6: an extension whose operators the task names with their schema, or NULL.
--
-- Expressions of indexes, of extended statistics and of partition keys run in any query of the table: the planner computes what is constant in
-- them (seen on 14 and 18: an IMMUTABLE function without arguments ran as the superuser who said SELECT count(*), and in EXPLAIN).
-- `lesser` is in ../rights.sql and `acting` in src/pg/acting_functions.sql, which come before. A function counts if its owner has fewer rights than
-- the session, also one that is SECURITY DEFINER: it runs as its owner, but a cursor WITH HOLD that it leaves is computed at the commit, as the
-- session's user, and its owner may make it SECURITY INVOKER at any time. A function of PostgreSQL counts if it is in `acting`: then the table's
-- owner chose to call it.
, silencing AS (
    -- By what the session runs as, which need not be the login.
    SELECT $5::boolean AND pg_catalog.current_setting('is_superuser') = 'on' AS silences
), named AS (
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
), actions AS MATERIALIZED (
    -- What rules read and write: tables, and views, whose own rules count in turn. What they write goes on with all events.
    SELECT w.ev_class AS oid, w.ev_type::text AS event, d.refobjid AS other
    FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    WHERE w.ev_enabled <> 'D' AND d.refobjid <> w.ev_class
), reached AS (
    -- Tables whose rows go or change with ours, over as many keys as there are: statements and triggers run there as the table's owner (AFTER
    -- triggers as the session before 18, seen on 14), and may leave a cursor WITH HOLD, which is computed as the session's user. And what rules
    -- read and write: their statements run as the session. `inserts`: rows may come, too.
    (
        SELECT k.conrelid AS oid, false AS inserts FROM tables t JOIN pg_catalog.pg_constraint k ON k.confrelid = t.oid AND k.contype = 'f'
        WHERE $2::int & 8 <> 0 AND k.confdeltype IN ('c', 'n', 'd')
        UNION SELECT a.other, true FROM tables t JOIN actions a ON a.oid = t.oid WHERE a.event = ANY ($3::text[])
    )
    UNION
    SELECT x.oid, x.inserts FROM reached r, LATERAL (
        SELECT k.conrelid AS oid, false AS inserts FROM pg_catalog.pg_constraint k WHERE k.confrelid = r.oid AND k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
        UNION ALL SELECT i.inhrelid, r.inserts FROM pg_catalog.pg_inherits i WHERE i.inhparent = r.oid
        UNION ALL SELECT a.other, true FROM actions a WHERE a.oid = r.oid
    ) x
), all_tables AS MATERIALIZED (
    SELECT oid FROM tables UNION SELECT oid FROM reached
), keyed AS (
    -- At either end of a foreign key of ours or of a table that a key reaches, and what inherits from these: queries name them without ONLY.
    (
        SELECT k.conrelid AS oid FROM all_tables t JOIN pg_catalog.pg_constraint k ON k.confrelid = t.oid AND k.contype = 'f'
        UNION SELECT k.confrelid FROM all_tables t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f'
    )
    UNION
    SELECT i.inhrelid FROM keyed k JOIN pg_catalog.pg_inherits i ON i.inhparent = k.oid
), around AS (
    -- Tables whose owners may put code where our statements come by: also above and below in the tree of partitions.
    SELECT oid FROM all_tables
    UNION SELECT a.relid::pg_catalog.oid FROM all_tables t, LATERAL pg_catalog.pg_partition_ancestors(t.oid::pg_catalog.regclass) a
    UNION SELECT oid FROM keyed
), firing AS (
    SELECT g.* FROM pg_catalog.pg_trigger g, silencing
    -- Before 15, those that a partition has of its parent are marked as internal.
    WHERE (NOT g.tgisinternal OR g.tgparentid <> 0 AND g.tgconstraint = 0) AND g.tgenabled <> 'D'
      -- 64: INSTEAD OF, on the view of a [compress] job, which is not what the job writes to.
      AND (g.tgrelid IN (SELECT oid FROM tables) AND g.tgtype & $2::int <> 0 AND g.tgtype & 64 = 0
               AND NOT (silencing.silences AND g.tgenabled = 'O' AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger r WHERE r.tgrelid = g.tgrelid AND r.tgenabled = 'R'))
           OR EXISTS (SELECT FROM reached r WHERE r.oid = g.tgrelid AND g.tgtype & CASE WHEN r.inserts THEN 28 ELSE 24 END <> 0) AND (g.tgtype & 64 = 0 OR g.tgrelid NOT IN (SELECT oid FROM tables)))
), rules AS (
    SELECT w.* FROM pg_catalog.pg_rewrite w
    WHERE w.ev_enabled <> 'D'
      AND (w.ev_class IN (SELECT oid FROM tables) AND w.ev_type::text = ANY ($3::text[]) AND w.rulename <> '_RETURN'
           OR EXISTS (SELECT FROM reached r WHERE r.oid = w.ev_class AND (w.ev_type IN ('2', '4') OR r.inserts)))
), expressions AS MATERIALIZED (
    SELECT e.* FROM (
        SELECT 'index' AS kind, pg_catalog.quote_ident(c.relname) AS name, i.indrelid AS table_oid, pg_catalog.concat(i.indexprs::text, i.indpred::text) AS tree
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
        UNION ALL
        SELECT 'statistics', pg_catalog.quote_ident(s.stxname), s.stxrelid, s.stxexprs::text FROM pg_catalog.pg_statistic_ext s WHERE s.stxexprs IS NOT NULL
        UNION ALL
        SELECT 'partition key', NULL, p.partrelid, p.partexprs::text FROM pg_catalog.pg_partitioned_table p WHERE p.partexprs IS NOT NULL
        UNION ALL
        SELECT 'trigger', pg_catalog.quote_ident(g.tgname), g.tgrelid, g.tgqual::text FROM firing g WHERE g.tgqual IS NOT NULL
        UNION ALL
        SELECT 'rule', pg_catalog.quote_ident(w.rulename), w.ev_class, pg_catalog.concat(w.ev_qual::text, w.ev_action::text) FROM rules w
        UNION ALL
        -- The planner looks at those of a partition in any query, and at those of a table that inherits in any with a condition (seen on 16).
        SELECT 'CHECK', pg_catalog.quote_ident(k.conname), k.conrelid, k.conbin::text FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
        WHERE k.contype = 'c' AND ($4::boolean AND k.conrelid IN (SELECT oid FROM all_tables) OR c.relispartition OR k.conrelid IN (SELECT i.inhrelid FROM pg_catalog.pg_inherits i) OR k.conrelid IN (SELECT oid FROM reached))
        UNION ALL
        SELECT 'generated column', pg_catalog.quote_ident(a.attname), a.attrelid, f.adbin::text FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
        WHERE a.attgenerated <> '' AND ($4::boolean OR a.attgenerated = 'v' OR a.attrelid IN (SELECT oid FROM reached))
        UNION ALL
        SELECT 'default', pg_catalog.quote_ident(a.attname), a.attrelid, f.adbin::text FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
        WHERE a.attgenerated = '' AND ($2::int & 4 <> 0 OR a.attrelid IN (SELECT oid FROM reached))
    ) e
    -- A query of ours, or of a foreign key, names the tables around, and the planner looks at these.
    WHERE e.table_oid IN (SELECT oid FROM all_tables) OR e.kind IN ('index', 'statistics', 'partition key', 'CHECK') AND e.table_oid IN (SELECT oid FROM around)
), types AS (
    -- The types of columns that are written, those that an expression names (a cast to a domain calls no function that the expression names), and
    -- the types that they consist of: a domain's CHECKs run, and a type's owner may change it. A type is named in fields like :resulttype,
    -- :consttype, :typeId and :array_typeid of a tree; a number after another field may be taken for one, which counts too much, not too little.
    -- The types of other columns count for their functions alone, which read, write and compare their values.
    SELECT a.attrelid AS table_oid, a.atttypid AS type, $4::boolean OR t.oid IN (SELECT oid FROM reached) AS is_written
    FROM all_tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT e.table_oid, m.found[1]::pg_catalog.oid, true FROM expressions e, LATERAL pg_catalog.regexp_matches(e.tree, ':[A-Za-z_]*typ(?!mod)[A-Za-z_]* ([1-9][0-9]*)', 'g') AS m(found)
    UNION
    SELECT t.table_oid, x.type, t.is_written FROM types t JOIN pg_catalog.pg_type y ON y.oid = t.type, LATERAL (
        SELECT y.typbasetype AS type UNION ALL SELECT y.typelem
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = y.oid UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = y.oid
        UNION ALL SELECT m.found[1]::pg_catalog.oid FROM pg_catalog.pg_constraint k, LATERAL pg_catalog.regexp_matches(k.conbin::text, ':[A-Za-z_]*typ(?!mod)[A-Za-z_]* ([0-9]+)', 'g') AS m(found)
                  WHERE k.contypid = y.oid AND k.contype = 'c'
    ) x WHERE x.type <> 0
), trees AS (
    SELECT e.kind, e.name, e.table_oid, e.tree FROM expressions e
    UNION ALL
    -- A CHECK of a table has no type: 0.
    SELECT 'domain CHECK', pg_catalog.quote_ident(k.conname), t.table_oid, k.conbin::text FROM types t JOIN pg_catalog.pg_constraint k ON k.contypid = t.type AND k.contypid <> 0 AND k.contype = 'c'
    WHERE t.is_written
), calls AS (
    SELECT 'trigger' AS kind, pg_catalog.quote_ident(g.tgname) AS name, g.tgrelid AS table_oid, g.tgfoid AS function FROM firing g
    UNION
    SELECT e.kind, e.name, e.table_oid, m.found[1]::pg_catalog.oid FROM trees e, LATERAL pg_catalog.regexp_matches(e.tree, ':(?:funcid|opfuncid|hashfuncid|negfuncid|winfnoid|aggfnoid) ([0-9]+)', 'g') AS m(found)
    UNION
    SELECT e.kind, e.name, e.table_oid, o.oprcode FROM trees e, LATERAL pg_catalog.regexp_matches(e.tree, ':(?:opno|eqop|sortop) ([0-9]+)', 'g') AS m(found), pg_catalog.pg_operator o
    WHERE o.oid = m.found[1]::pg_catalog.oid
), user_families AS MATERIALIZED (
    -- Of operators, with members that PostgreSQL did not bring along.
    SELECT p.amprocfamily AS oid FROM pg_catalog.pg_amproc p WHERE p.oid >= 16384 UNION SELECT a.amopfamily FROM pg_catalog.pg_amop a WHERE a.oid >= 16384
), uses AS (
    -- What that code consists of, and what PostgreSQL itself calls for indexes, partition keys and types. Only a superuser makes an operator class, a
    -- base type or a range, and an owner of a type a cast, but the function may be another role's; so may those of an aggregate, and those that a
    -- body with BEGIN ATOMIC calls. Operators of foreign keys and of exclusion constraints are members of an index's operator family.
    SELECT c.kind, c.name, c.table_oid, 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid AS classid, c.function AS objid FROM calls c
    UNION
    SELECT k.kind, k.name, k.table_oid, 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.opcfamily FROM (
        SELECT 'index' AS kind, pg_catalog.quote_ident(c.relname) AS name, i.indrelid AS table_oid, pg_catalog.unnest(i.indclass::pg_catalog.oid[]) AS class
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        UNION ALL SELECT 'partition key', NULL, p.partrelid, pg_catalog.unnest(p.partclass::pg_catalog.oid[]) FROM pg_catalog.pg_partitioned_table p
    ) k JOIN pg_catalog.pg_opclass o ON o.oid = k.class AND o.opcfamily IN (SELECT oid FROM user_families)
    WHERE k.table_oid IN (SELECT oid FROM around)
    UNION
    SELECT 'type', pg_catalog.format('%I.%I', n.nspname, y.typname), t.table_oid, 'pg_catalog.pg_type'::pg_catalog.regclass, y.oid
    FROM types t JOIN pg_catalog.pg_type y ON y.oid = t.type AND y.oid >= 16384 JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
    UNION
    SELECT u.kind, u.name, u.table_oid, x.classid, x.objid FROM uses u, LATERAL (
        SELECT d.refclassid AS classid, d.refobjid AS objid FROM pg_catalog.pg_depend d
        WHERE d.classid = u.classid AND d.objid = u.objid
          AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_opfamily'::pg_catalog.regclass)
        UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid FROM pg_catalog.pg_opclass o WHERE u.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND o.opcintype = u.objid AND o.opcdefault
        UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.opcfamily FROM pg_catalog.pg_opclass o WHERE u.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND o.oid = u.objid
        UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.amproc::pg_catalog.oid FROM pg_catalog.pg_amproc p WHERE u.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND p.amprocfamily = u.objid AND p.oid >= 16384
        UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, q.oprcode::pg_catalog.oid FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_operator q ON q.oid = a.amopopr
                  WHERE u.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND a.amopfamily = u.objid AND a.oid >= 16384
        -- Not those to other users' types, which their owners make, and which no statement of ours names.
        UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, k.castfunc FROM pg_catalog.pg_cast k
                  WHERE u.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND (k.castsource = u.objid AND k.casttarget < 16384 OR k.casttarget = u.objid AND k.castsource < 16384)
    ) x
), held AS MATERIALIZED (
    -- Roles that may put code where our statements come by, though nothing of it is theirs: a trigger; a foreign key, which brings the triggers of
    -- their own table; a table of the same name where a superuser's statements go by it. 0 is PUBLIC.
    SELECT 'TRIGGER' AS kind, c.oid AS table_oid, x.grantee AS oid
    FROM all_tables t JOIN pg_catalog.pg_class c ON c.oid = t.oid, silencing, LATERAL pg_catalog.aclexplode(c.relacl) x
    WHERE x.privilege_type = 'TRIGGER' AND x.grantee <> c.relowner
      AND ($2::int <> 0 AND NOT (silencing.silences AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger r WHERE r.tgrelid = c.oid AND r.tgenabled = 'R')) OR t.oid IN (SELECT r.oid FROM reached r))
    UNION
    SELECT 'REFERENCES', c.oid, x.grantee
    FROM all_tables t JOIN pg_catalog.pg_class c ON c.oid = t.oid, LATERAL (
        SELECT a.grantee, a.privilege_type FROM pg_catalog.aclexplode(c.relacl) a
        UNION ALL SELECT b.grantee, b.privilege_type FROM pg_catalog.pg_attribute y, LATERAL pg_catalog.aclexplode(y.attacl) b WHERE y.attrelid = c.oid AND NOT y.attisdropped
    ) x
    WHERE x.privilege_type = 'REFERENCES' AND x.grantee <> c.relowner
      AND ($2::int & 24 <> 0 OR ARRAY['2', '4'] && $3::text[] OR t.oid IN (SELECT r.oid FROM reached r))
    UNION
    SELECT 'CREATE', c.oid, x.grantee
    FROM all_tables t JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, me, LATERAL pg_catalog.aclexplode(n.nspacl) x
    WHERE me.rolsuper AND x.privilege_type = 'CREATE' AND x.grantee <> n.nspowner
), holders AS (
    SELECT h.oid FROM held h
), foreign_code AS (
    SELECT c.kind, c.name, c.table_oid, pg_catalog.format('%I.%I', n.nspname, p.proname) AS function,
           CASE WHEN n.nspname = 'pg_catalog' THEN t.relowner ELSE p.proowner END AS owner
    FROM uses c JOIN pg_catalog.pg_proc p ON p.oid = c.objid AND c.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_class t ON t.oid = c.table_oid
    WHERE CASE WHEN n.nspname = 'pg_catalog' THEN p.oid IN (SELECT oid FROM acting) ELSE true END
    UNION
    SELECT 'rule', pg_catalog.quote_ident(w.rulename), w.ev_class, NULL, t.relowner
    FROM rules w JOIN pg_catalog.pg_class t ON t.oid = w.ev_class WHERE w.rulename <> '_RETURN'
    UNION
    -- Event triggers of statements are silenced where this session's are (settings.rs); those of the login have run by then.
    SELECT 'event trigger', pg_catalog.quote_ident(e.evtname), named.oid, pg_catalog.format('%I.%I', n.nspname, p.proname), p.proowner
    FROM named, pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE e.evtenabled <> 'D' AND (e.evtevent = 'login' OR pg_catalog.current_setting('event_triggers', true) IS DISTINCT FROM 'off')
    UNION
    SELECT h.kind, CASE WHEN h.kind = 'CREATE' THEN pg_catalog.quote_ident(n.nspname) END, h.table_oid, NULL, h.oid
    FROM held h JOIN pg_catalog.pg_class c ON c.oid = h.table_oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    UNION
    -- The owner itself, with or without code that can be seen: a cursor WITH HOLD, a cast, a domain, a type's function hide from all of the above.
    SELECT 'table', NULL, t.oid, NULL, t.relowner FROM around a JOIN pg_catalog.pg_class t ON t.oid = a.oid
    UNION
    -- The schema's owner may rename the table, and put another one in its place, to which our statements go by name.
    SELECT 'schema', pg_catalog.quote_ident(n.nspname), t.oid, NULL, n.nspowner FROM around a JOIN pg_catalog.pg_class t ON t.oid = a.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspowner <> t.relowner
    UNION
    SELECT 'type', pg_catalog.format('%I.%I', n.nspname, y.typname), t.oid, NULL, y.typowner FROM types x JOIN pg_catalog.pg_class t ON t.oid = x.table_oid JOIN pg_catalog.pg_type y ON y.oid = x.type
    JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace WHERE x.is_written AND n.nspname <> 'pg_catalog' AND y.typowner <> t.relowner
    UNION
    -- Rows of a foreign table come from where its server's owner says.
    SELECT 'server', pg_catalog.quote_ident(s.srvname), t.oid, NULL, s.srvowner FROM all_tables a JOIN pg_catalog.pg_class t ON t.oid = a.oid JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = t.oid
    JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver WHERE s.srvowner <> t.relowner
    UNION
    -- The owner of an extension's schema may rename it, and put operators of the same names into another one of its name.
    SELECT 'extension', pg_catalog.format('%I (schema %I)', e.extname, n.nspname), named.oid, NULL, n.nspowner FROM named, pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = $6::text
    UNION
    -- So may the owner of a schema whose operators and types our statements name: those of the keys (pg::Operator).
    SELECT 'operators', pg_catalog.quote_ident(n.nspname), t.oid, NULL, n.nspowner
    FROM around a JOIN pg_catalog.pg_index i ON i.indrelid = a.oid JOIN pg_catalog.pg_class t ON t.oid = a.oid, LATERAL pg_catalog.unnest(i.indclass::pg_catalog.oid[]) AS k(class)
    JOIN pg_catalog.pg_opclass c ON c.oid = k.class JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.oid >= 16384 JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
    JOIN pg_catalog.pg_type y ON y.oid IN (o.oprleft, o.oprright) JOIN pg_catalog.pg_namespace n ON n.oid IN (o.oprnamespace, y.typnamespace)
    WHERE n.nspname <> 'pg_catalog' AND n.nspowner <> t.relowner
), whose AS (
    -- Objects of pg_database_owner belong to the database's owner, who is its only member.
    SELECT f.kind, f.name, f.table_oid, f.function, CASE WHEN r.rolname = 'pg_database_owner' THEN d.datdba ELSE f.owner END AS owner
    FROM foreign_code f LEFT JOIN pg_catalog.pg_roles r ON r.oid = f.owner, this_database d
)
SELECT DISTINCT f.kind, f.name, pg_catalog.format('%I.%I', n.nspname, c.relname) AS "table", f.function, r.rolname::text AS owner, me.rolname::text AS runs_as,
       me.rolsuper AS is_superuser, me.is_superuser_itself, l.gains, f.table_oid IN (SELECT oid FROM tables) AS is_queried
FROM whose f JOIN lesser l ON l.oid = f.owner JOIN pg_catalog.pg_class c ON c.oid = f.table_oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_roles r ON r.oid = f.owner
CROSS JOIN me
ORDER BY 3, 1, 2, 4
