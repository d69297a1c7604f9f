-- The objects by which a query that names the relation $1 may run code of a role in $2, or of a predefined role, which may have any members: the nearest one.
-- A foreign table is one, whoever owns it: what its rows come from is decided elsewhere, perhaps in this database, by another role.
--
-- The owner of the schema can rename it, and put another relation in the place; a role that may only CREATE there cannot. A query runs code of: tables
-- above and below, whose owners can add to them; expressions of indexes, statistics, CHECKs and partition keys, which the planner computes (not of
-- defaults, which only writes do); rules of a view; and what those consist of, as pg_depend has it. The body of a function that is a text cannot
-- be looked into.
--
-- Each step is LATERAL with UNION ALL or OFFSET 0, so that it looks objects up by their indexes, however many the database has: the planner takes
-- a list that refers to itself for a long one, and reads pg_class, pg_attribute and pg_constraint from end to end (0.1 s in a database of 3,000 tables).
WITH RECURSIVE above AS (
    SELECT $1::bigint::oid AS oid
    UNION
    SELECT i.inhparent FROM above a, LATERAL (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = a.oid OFFSET 0) i
), below AS (
    SELECT $1::bigint::oid AS oid
    UNION
    SELECT i.inhrelid FROM below b, LATERAL (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = b.oid OFFSET 0) i
), reached (classid, objid) AS (
    SELECT h.classid, h.objid FROM (
        SELECT 'pg_class'::regclass::oid AS classid, oid AS objid FROM above
        UNION ALL SELECT of_it.classid, of_it.objid FROM below b, LATERAL (
            SELECT 'pg_class'::regclass::oid AS classid, b.oid AS objid
            UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i WHERE i.indrelid = b.oid
            UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid FROM pg_statistic_ext s WHERE s.stxrelid = b.oid
            UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k WHERE k.conrelid = b.oid AND k.contype = 'c'
            UNION ALL SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attribute a, LATERAL (SELECT d.oid FROM pg_attrdef d WHERE d.adrelid = b.oid AND d.adnum = a.attnum OFFSET 0) d WHERE a.attrelid = b.oid AND a.attgenerated <> ''
            UNION ALL SELECT 'pg_rewrite'::regclass, w.oid FROM pg_rewrite w WHERE w.ev_class = b.oid
        ) of_it
        -- pg_depend has nothing of PostgreSQL's own operator classes, and a superuser may have added functions to their families.
        UNION ALL SELECT 'pg_opfamily'::regclass, o.opcfamily FROM (
            SELECT unnest(i.classes) AS class FROM below b, LATERAL (SELECT i.indclass::oid[] AS classes FROM pg_index i WHERE i.indrelid = b.oid OFFSET 0) i
            UNION SELECT unnest(p.classes) FROM (SELECT oid FROM above UNION SELECT oid FROM below) t, LATERAL (SELECT p.partclass::oid[] AS classes FROM pg_partitioned_table p WHERE p.partrelid = t.oid OFFSET 0) p
        ) k, LATERAL (SELECT o.opcfamily FROM pg_opclass o WHERE o.oid = k.class OFFSET 0) o
    ) h
    UNION
    SELECT x.classid, x.objid FROM reached r, LATERAL (
        SELECT d.refclassid AS classid, d.refobjid AS objid FROM pg_depend d
        WHERE d.classid = r.classid AND d.objid = r.objid
          AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass)
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k WHERE r.classid = 'pg_type'::regclass AND k.contypid = r.objid
        UNION ALL SELECT 'pg_class'::regclass, y.typrelid FROM pg_type y WHERE r.classid = 'pg_type'::regclass AND y.oid = r.objid AND y.typrelid <> 0
        UNION ALL SELECT 'pg_proc'::regclass, p.amproc::oid FROM pg_amproc p WHERE r.classid = 'pg_opfamily'::regclass AND p.amprocfamily = r.objid AND p.oid >= 16384
        UNION ALL SELECT 'pg_operator'::regclass, o.amopopr FROM pg_amop o WHERE r.classid = 'pg_opfamily'::regclass AND o.amopfamily = r.objid AND o.oid >= 16384
        -- GROUP BY and casts.
        UNION ALL SELECT 'pg_opclass'::regclass, o.oid FROM pg_opclass o WHERE r.classid = 'pg_type'::regclass AND o.opcintype = r.objid AND o.opcdefault
        UNION ALL SELECT 'pg_proc'::regclass, k.castfunc FROM pg_cast k WHERE r.classid = 'pg_type'::regclass AND (k.castsource = r.objid AND k.casttarget < 16384 OR k.casttarget = r.objid AND k.castsource < 16384)
    ) x
), owned AS (
    SELECT o.distance, r.classid, r.objid, o.owner FROM reached r, LATERAL (
        SELECT CASE WHEN c.oid = $1::bigint::oid THEN 1 ELSE 3 END AS distance, c.relowner AS owner FROM pg_class c WHERE r.classid = 'pg_class'::regclass AND c.oid = r.objid
        UNION ALL SELECT 4, p.proowner FROM pg_proc p WHERE r.classid = 'pg_proc'::regclass AND p.oid = r.objid
        UNION ALL SELECT 5, y.typowner FROM pg_type y WHERE r.classid = 'pg_type'::regclass AND y.oid = r.objid
        UNION ALL SELECT 6, o.oprowner FROM pg_operator o WHERE r.classid = 'pg_operator'::regclass AND o.oid = r.objid
        UNION ALL SELECT 6, o.opcowner FROM pg_opclass o WHERE r.classid = 'pg_opclass'::regclass AND o.oid = r.objid
        UNION ALL SELECT 6, o.opfowner FROM pg_opfamily o WHERE r.classid = 'pg_opfamily'::regclass AND o.oid = r.objid
    ) o
    UNION ALL SELECT 2, 'pg_namespace'::regclass, n.oid, n.nspowner FROM pg_class c, LATERAL (SELECT n.oid, n.nspowner FROM pg_namespace n WHERE n.oid = c.relnamespace OFFSET 0) n WHERE c.oid = $1::bigint::oid
), whose AS (
    -- Objects of pg_database_owner belong to the database's owner, who is its only member.
    SELECT o.distance, o.classid, o.objid, CASE WHEN r.rolname = 'pg_database_owner' THEN d.datdba ELSE o.owner END AS owner
    FROM owned o JOIN pg_roles r ON r.oid = o.owner, pg_database d WHERE d.datname = current_database()
)
SELECT CASE w.classid WHEN 'pg_namespace'::regclass THEN 'the ' || pg_describe_object(w.classid, w.objid, 0)
                      WHEN 'pg_class'::regclass THEN (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = w.objid)
                      ELSE pg_describe_object(w.classid, w.objid, 0) END AS object,
       quote_ident(r.rolname) AS owner, f.ftrelid IS NOT NULL AS is_foreign
FROM whose w JOIN pg_roles r ON r.oid = w.owner LEFT JOIN pg_foreign_table f ON w.classid = 'pg_class'::regclass AND f.ftrelid = w.objid
WHERE w.owner::bigint = ANY ($2::bigint[]) OR w.owner < 16384 AND NOT r.rolsuper OR f.ftrelid IS NOT NULL
ORDER BY is_foreign, w.distance, object LIMIT 1
