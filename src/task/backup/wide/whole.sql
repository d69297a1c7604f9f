-- Which of these tables ($1, by their oids) one session must read as a whole: a slice is read by a query, and to plan it PostgreSQL computes what is
-- constant in expressions of the table's indexes and statistics, as the login. `lesser` is in rights.sql, which comes before.
, wanted AS (
    SELECT w.oid::pg_catalog.oid AS oid FROM pg_catalog.unnest($1::bigint[]) AS w (oid)
), around AS (
    SELECT w.oid AS table_oid, w.oid FROM wanted w
    UNION SELECT w.oid, a.relid::pg_catalog.oid FROM wanted w, LATERAL pg_catalog.pg_partition_ancestors(w.oid::pg_catalog.regclass) a
), behind AS (
    -- Whoever may put such an expression there, or another relation in the table's place, by what they have; 0 is PUBLIC. What pg_database_owner has, the
    -- database's owner has, who is its only member.
    SELECT x.table_oid, x.number, x.has, CASE WHEN r.rolname = 'pg_database_owner' THEN d.datdba ELSE x.oid END AS oid
    FROM this_database d, (
        SELECT a.table_oid, 1 AS number, 'owns it' AS has, c.relowner AS oid FROM around a JOIN pg_catalog.pg_class c ON c.oid = a.oid
        UNION SELECT a.table_oid, 2, 'owns its schema', n.nspowner
        FROM around a JOIN pg_catalog.pg_class c ON c.oid = a.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        UNION SELECT a.table_oid, 3, 'owns statistics of it', s.stxowner FROM around a JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid = a.oid
        UNION SELECT a.table_oid, 4, 'may create objects in its schema', x.grantee
        FROM around a JOIN pg_catalog.pg_class c ON c.oid = a.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, LATERAL pg_catalog.aclexplode(n.nspacl) x
        WHERE x.privilege_type = 'CREATE'
    ) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.oid
), holders AS (
    SELECT b.oid FROM behind b
), computed AS (
    -- Expressions that may call functions of others, who need not own the table.
    SELECT i.indrelid AS table_oid, pg_catalog.format('the index %I', c.relname) AS what
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
    WHERE (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) AND d.refobjid >= 16384
      AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass)
    UNION
    SELECT s.stxrelid, pg_catalog.format('the statistics %I', s.stxname)
    FROM pg_catalog.pg_statistic_ext s
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND d.objid = s.oid
    WHERE s.stxexprs IS NOT NULL AND d.refobjid >= 16384
      AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass)
)
SELECT w.oid::bigint AS oid, f.role, f.has, (SELECT pg_catalog.min(c.what) FROM computed c WHERE c.table_oid = w.oid) AS computed
FROM wanted w LEFT JOIN LATERAL (
    SELECT r.rolname::text AS role, b.has FROM behind b JOIN lesser l ON l.oid = b.oid LEFT JOIN pg_catalog.pg_roles r ON r.oid = b.oid
    WHERE b.table_oid = w.oid ORDER BY b.number, r.rolname LIMIT 1
) f ON true
