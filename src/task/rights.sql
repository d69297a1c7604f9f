-- Roles that own something in this database, or may put code into it, and have fewer rights than the login of this session: their code gets
-- rights that they do not have when it runs as the login. These are the first queries of a WITH RECURSIVE: others follow, among them `holders`,
-- with the oids of roles that own nothing perhaps and count all the same (0 is PUBLIC).
kinds AS (
    -- What makes a member: since 16 each of these is granted by itself, and SET is what becomes the other role. A member with SET can do what one
    -- with USAGE can.
    SELECT CASE WHEN pg_catalog.current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END AS becomes
), me AS (
    -- A login that may become a superuser counts as one (rolsuper), whatever its session runs as: code in it may say SET ROLE, too. So does one that
    -- has a superuser's privileges without SET: it may replace the functions that the superuser owns.
    SELECT r.oid, r.rolname, r.rolsuper AS is_superuser_itself, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls,
           r.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.rolsuper AND pg_catalog.pg_has_role(r.oid, s.oid, 'USAGE, ' || kinds.becomes)) AS rolsuper
    FROM pg_catalog.pg_roles r, kinds WHERE r.rolname = session_user
), this_database AS (
    SELECT d.oid, d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
), mine AS MATERIALIZED (
    -- Objects that the login owns, privileges that were granted to it by its name, and policies that name it: here, in other databases and in the
    -- whole server, since the code can change the login's password and connect as it anywhere. Those of pgtend's run history are marked. What is in
    -- another database cannot be looked at from here.
    SELECT d.classid, d.objid, d.objsubid, d.deptype::text AS how, d.dbid,
           CASE WHEN d.dbid NOT IN (0, this_database.oid) THEN 'elsewhere'
                WHEN CASE d.classid WHEN 'pg_catalog.pg_namespace'::pg_catalog.regclass THEN (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = d.objid)
                                    WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN (SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = d.objid)
                                    WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN (SELECT n.nspname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = d.objid)
                                    WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN (SELECT n.nspname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = d.objid)
                     END = 'pgtend' AND d.dbid <> 0 THEN 'history'
                ELSE 'here' END AS place
    FROM pg_catalog.pg_shdepend d, me, this_database
    WHERE NOT me.rolsuper AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = me.oid AND d.deptype IN ('o', 'a', 'r')
      -- Temporary tables of this login's sessions.
      AND NOT (d.dbid = this_database.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
               AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid AND c.relpersistence = 't'))
), every_owner AS (
    SELECT DISTINCT o.oid, o.rolname, o.rolcreaterole, o.rolcreatedb, o.rolreplication, o.rolbypassrls FROM pg_catalog.pg_roles o, kinds, this_database
    WHERE o.oid IN (SELECT d.refobjid FROM pg_catalog.pg_shdepend d, this_database WHERE d.dbid = this_database.oid AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'o'
                    UNION SELECT datdba FROM this_database)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.rolsuper AND pg_catalog.pg_has_role(o.oid, s.oid, kinds.becomes))
), every_author AS (
    SELECT o.* FROM every_owner o
    UNION
    SELECT o.oid, o.rolname, o.rolcreaterole, o.rolcreatedb, o.rolreplication, o.rolbypassrls FROM pg_catalog.pg_roles o, kinds
    WHERE o.oid IN (SELECT h.oid FROM holders h)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.rolsuper AND pg_catalog.pg_has_role(o.oid, s.oid, kinds.becomes))
), owners AS (
    SELECT o.* FROM every_author o, me, kinds
    -- Not the login itself, nor one that may become it.
    WHERE NOT pg_catalog.pg_has_role(o.oid, me.oid, kinds.becomes)
      AND NOT (NOT me.is_superuser_itself AND pg_catalog.pg_has_role(o.oid, me.oid, 'MEMBER WITH ADMIN OPTION'))
), privileges AS (
    -- Of the objects in this database, and of those that all databases share.
    SELECT m.classid, m.objid, m.objsubid, x.privilege_type || CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS privilege, m.place
    FROM mine m, me, LATERAL (
        SELECT c.relacl AS acl FROM pg_catalog.pg_class c WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objsubid = 0 AND c.oid = m.objid
        UNION ALL SELECT a.attacl FROM pg_catalog.pg_attribute a WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objsubid <> 0 AND a.attrelid = m.objid AND a.attnum = m.objsubid
        UNION ALL SELECT n.nspacl FROM pg_catalog.pg_namespace n WHERE m.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.oid = m.objid
        UNION ALL SELECT d.datacl FROM pg_catalog.pg_database d WHERE m.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND d.oid = m.objid
        UNION ALL SELECT p.proacl FROM pg_catalog.pg_proc p WHERE m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = m.objid
        UNION ALL SELECT t.typacl FROM pg_catalog.pg_type t WHERE m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = m.objid
        UNION ALL SELECT s.srvacl FROM pg_catalog.pg_foreign_server s WHERE m.classid = 'pg_catalog.pg_foreign_server'::pg_catalog.regclass AND s.oid = m.objid
    ) o, LATERAL pg_catalog.aclexplode(o.acl) x
    WHERE m.how = 'a' AND m.place <> 'elsewhere' AND x.grantee = me.oid
), lacked AS (
    SELECT o.oid AS owner, m.place FROM owners o, mine m WHERE m.how = 'o'
    UNION
    SELECT o.oid, p.place FROM owners o, privileges p
    WHERE NOT CASE p.classid
        WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN
            CASE WHEN p.objsubid <> 0 THEN pg_catalog.has_column_privilege(o.oid, p.objid, p.objsubid::int2, p.privilege)
                 WHEN (SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid = p.objid) = 'S' THEN pg_catalog.has_sequence_privilege(o.oid, p.objid, p.privilege)
                 ELSE pg_catalog.has_table_privilege(o.oid, p.objid, p.privilege) END
        WHEN 'pg_catalog.pg_namespace'::pg_catalog.regclass THEN pg_catalog.has_schema_privilege(o.oid, p.objid, p.privilege)
        WHEN 'pg_catalog.pg_database'::pg_catalog.regclass THEN pg_catalog.has_database_privilege(o.oid, p.objid, p.privilege)
        WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN pg_catalog.has_function_privilege(o.oid, p.objid, p.privilege)
        WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN pg_catalog.has_type_privilege(o.oid, p.objid, p.privilege)
        ELSE pg_catalog.has_server_privilege(o.oid, p.objid, p.privilege) END
    UNION
    -- Privileges in other databases and on objects of other kinds, and policies: they count, unless the owner owns the same object (or the policy's table).
    SELECT o.oid, m.place FROM owners o, mine m
    WHERE m.how IN ('a', 'r')
      AND (m.how = 'r' OR m.place = 'elsewhere' OR m.classid NOT IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_namespace'::pg_catalog.regclass,
           'pg_catalog.pg_database'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_foreign_server'::pg_catalog.regclass))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_shdepend d WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = o.oid AND d.deptype = 'o'
                      AND d.dbid = m.dbid AND d.classid = m.classid AND d.objid = m.objid)
      AND NOT (m.how = 'r' AND m.place <> 'elsewhere' AND m.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
               AND EXISTS (SELECT FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid WHERE p.oid = m.objid AND c.relowner = o.oid))
), lesser AS (
    -- The roles of monitoring do not count: `grants` gives them to every role.
    SELECT o.oid, CASE WHEN bool_or(o.place = 'here') THEN 'rights' WHEN bool_or(o.place = 'history') THEN 'history' ELSE 'elsewhere' END AS gains FROM (
        SELECT o.oid, 'here' AS place FROM owners o, me, kinds
        WHERE me.rolsuper OR me.rolcreaterole AND NOT o.rolcreaterole OR me.rolcreatedb AND NOT o.rolcreatedb OR me.rolreplication AND NOT o.rolreplication OR me.rolbypassrls AND NOT o.rolbypassrls
           OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid <> me.oid AND (
                          r.rolname NOT IN ('pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables')
                              AND (pg_catalog.pg_has_role(me.oid, r.oid, kinds.becomes) AND NOT pg_catalog.pg_has_role(o.oid, r.oid, kinds.becomes)
                                   OR pg_catalog.pg_has_role(me.oid, r.oid, 'USAGE') AND NOT pg_catalog.pg_has_role(o.oid, r.oid, 'USAGE, ' || kinds.becomes))
                          OR pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION') AND NOT pg_catalog.pg_has_role(o.oid, r.oid, 'MEMBER WITH ADMIN OPTION')))
        UNION ALL SELECT l.owner, l.place FROM lacked l
    ) o GROUP BY 1
    -- The least of all roles has nothing that a login for jobs has.
    UNION ALL SELECT 0::pg_catalog.oid, 'rights' WHERE EXISTS (SELECT FROM holders h WHERE h.oid = 0)
)
