-- The objects by which a query that names the relation $1 may run code of a role in $2, or of a predefined role, which may have any members: the nearest one.
-- A foreign table is one, whoever owns it: what its rows come from is decided elsewhere, perhaps in this database, by another role.
--
-- The owner of the schema can rename it, and put another relation in the place; a role that may only CREATE there cannot. A query runs code of: tables
-- above and below, whose owners can add to them; expressions of indexes, statistics, CHECKs and partition keys, which the planner computes (not of
-- defaults, which only writes do); rules of a view; and what those consist of, as pg_depend has it. The body of a function that is a text cannot
-- be looked into.
WITH RECURSIVE above AS (
    SELECT $1::bigint::oid AS oid
    UNION
    SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.oid
), below AS (
    SELECT $1::bigint::oid AS oid
    UNION
    SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid
), reached (classid, objid) AS (
    SELECT h.classid, h.objid FROM (
        SELECT 'pg_class'::regclass::oid AS classid, oid AS objid FROM above
        UNION ALL SELECT 'pg_class'::regclass, oid FROM below
        UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM below b JOIN pg_index i ON i.indrelid = b.oid
        UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid FROM below b JOIN pg_statistic_ext s ON s.stxrelid = b.oid
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM below b JOIN pg_constraint k ON k.conrelid = b.oid AND k.contype = 'c'
        UNION ALL SELECT 'pg_attrdef'::regclass, d.oid FROM below b JOIN pg_attrdef d ON d.adrelid = b.oid JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated <> ''
        UNION ALL SELECT 'pg_rewrite'::regclass, w.oid FROM below b JOIN pg_rewrite w ON w.ev_class = b.oid
        -- pg_depend has nothing of PostgreSQL's own operator classes, and a superuser may have added functions to their families.
        UNION ALL SELECT 'pg_opfamily'::regclass, o.opcfamily FROM (
            SELECT unnest(i.indclass::oid[]) AS class FROM below b JOIN pg_index i ON i.indrelid = b.oid
            UNION SELECT unnest(p.partclass::oid[]) FROM (SELECT oid FROM above UNION SELECT oid FROM below) t JOIN pg_partitioned_table p ON p.partrelid = t.oid
        ) k JOIN pg_opclass o ON o.oid = k.class
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
    SELECT CASE WHEN c.oid = $1::bigint::oid THEN 1 ELSE 3 END AS distance, r.classid, r.objid, c.relowner AS owner FROM reached r JOIN pg_class c ON c.oid = r.objid WHERE r.classid = 'pg_class'::regclass
    UNION ALL SELECT 2, 'pg_namespace'::regclass, n.oid, n.nspowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::bigint::oid
    UNION ALL SELECT 4, r.classid, r.objid, p.proowner FROM reached r JOIN pg_proc p ON p.oid = r.objid WHERE r.classid = 'pg_proc'::regclass
    UNION ALL SELECT 5, r.classid, r.objid, y.typowner FROM reached r JOIN pg_type y ON y.oid = r.objid WHERE r.classid = 'pg_type'::regclass
    UNION ALL SELECT 6, r.classid, r.objid, o.oprowner FROM reached r JOIN pg_operator o ON o.oid = r.objid WHERE r.classid = 'pg_operator'::regclass
    UNION ALL SELECT 6, r.classid, r.objid, o.opcowner FROM reached r JOIN pg_opclass o ON o.oid = r.objid WHERE r.classid = 'pg_opclass'::regclass
    UNION ALL SELECT 6, r.classid, r.objid, o.opfowner FROM reached r JOIN pg_opfamily o ON o.oid = r.objid WHERE r.classid = 'pg_opfamily'::regclass
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
