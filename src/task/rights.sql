-- Roles that own something in this database and have less rights than the login of this session: code of theirs that runs as the login gets
-- rights that they have not. First of a WITH RECURSIVE: other queries follow.
me AS (
    SELECT r.oid, r.rolname, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls FROM pg_catalog.pg_roles r WHERE r.rolname = session_user
), this_database AS (
    SELECT d.oid, d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
), mine AS MATERIALIZED (
    -- What the login owns and what was granted to it by its name, here and in the whole server. The run history of pgtend is told apart.
    SELECT d.classid, d.objid, d.objsubid, d.deptype::text AS how,
           coalesce(CASE d.classid WHEN 'pg_catalog.pg_namespace'::pg_catalog.regclass THEN (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = d.objid)
                                   WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN (SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = d.objid)
                                   WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN (SELECT n.nspname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = d.objid)
                                   WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN (SELECT n.nspname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = d.objid)
                    END = 'pgtend', false) AS is_history
    FROM pg_catalog.pg_shdepend d, me, this_database
    WHERE NOT me.rolsuper AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = me.oid AND d.deptype IN ('o', 'a') AND d.dbid IN (0, this_database.oid)
), owners AS (
    SELECT DISTINCT o.oid, o.rolcreaterole, o.rolcreatedb, o.rolreplication, o.rolbypassrls FROM pg_catalog.pg_roles o, me, this_database
    WHERE o.oid IN (SELECT d.refobjid FROM pg_catalog.pg_shdepend d, this_database WHERE d.dbid = this_database.oid AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'o'
                    UNION SELECT datdba FROM this_database)
      -- Itself, or one that may become it.
      AND NOT pg_catalog.pg_has_role(o.oid, me.oid, 'MEMBER')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.rolsuper AND pg_catalog.pg_has_role(o.oid, s.oid, 'MEMBER'))
), lacked AS (
    SELECT o.oid AS owner, m.is_history FROM owners o, mine m
    WHERE m.how = 'o' OR m.how = 'a' AND CASE m.classid
        WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN
            EXISTS (SELECT FROM me, pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x
                    WHERE m.objsubid = 0 AND c.oid = m.objid AND x.grantee = me.oid
                      AND NOT CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(o.oid, c.oid, x.privilege_type) ELSE pg_catalog.has_table_privilege(o.oid, c.oid, x.privilege_type) END)
            OR EXISTS (SELECT FROM me, pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) x
                       WHERE m.objsubid <> 0 AND a.attrelid = m.objid AND a.attnum = m.objsubid AND x.grantee = me.oid
                         AND NOT pg_catalog.has_column_privilege(o.oid, a.attrelid, a.attnum, x.privilege_type))
        WHEN 'pg_catalog.pg_namespace'::pg_catalog.regclass THEN
            EXISTS (SELECT FROM me, pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) x WHERE n.oid = m.objid AND x.grantee = me.oid AND NOT pg_catalog.has_schema_privilege(o.oid, n.oid, x.privilege_type))
        WHEN 'pg_catalog.pg_database'::pg_catalog.regclass THEN
            EXISTS (SELECT FROM me, pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) x WHERE d.oid = m.objid AND x.grantee = me.oid AND NOT pg_catalog.has_database_privilege(o.oid, d.oid, x.privilege_type))
        WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN
            EXISTS (SELECT FROM me, pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) x WHERE p.oid = m.objid AND x.grantee = me.oid AND NOT pg_catalog.has_function_privilege(o.oid, p.oid, x.privilege_type))
        ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_shdepend d WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = o.oid AND d.classid = m.classid AND d.objid = m.objid)
    END
), lesser AS (
    -- What monitoring sees is not counted: `grants` gives it to every role.
    SELECT o.oid, bool_and(only_history) AS only_history FROM (
        SELECT o.oid, false AS only_history FROM owners o, me
        WHERE me.rolsuper OR me.rolcreaterole AND NOT o.rolcreaterole OR me.rolcreatedb AND NOT o.rolcreatedb OR me.rolreplication AND NOT o.rolreplication OR me.rolbypassrls AND NOT o.rolbypassrls
           OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid <> me.oid AND pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER') AND NOT pg_catalog.pg_has_role(o.oid, r.oid, 'MEMBER')
                      AND r.rolname NOT IN ('pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables'))
        UNION ALL SELECT l.owner, l.is_history FROM lacked l
    ) o GROUP BY 1
)
