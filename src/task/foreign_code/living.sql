-- Living objects that a restored part uses, the schemas that it goes into or names, and the roles with fewer rights than the login that own them or may
-- create in them: what they put there may run with the rights of the restore. $1 classes, $2 schemas and $3 names of objects that are no tables; $4 schemas.
-- It follows ../rights.sql, which is a part of a WITH RECURSIVE.
, used AS MATERIALIZED (
    SELECT x.classid, x.objid
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) w(class, schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
    CROSS JOIN LATERAL (
        SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid AS classid, t.oid AS objid FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
                  WHERE w.class = 'type' AND t.typnamespace = n.oid AND t.typname = w.name AND (c.relkind = 'c' OR c.oid IS NULL)
        UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid FROM pg_catalog.pg_proc p WHERE w.class = 'routine' AND p.pronamespace = n.oid AND p.proname = w.name
        UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid FROM pg_catalog.pg_operator o WHERE w.class = 'operator' AND o.oprnamespace = n.oid AND o.oprname = w.name
        UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid FROM pg_catalog.pg_opclass o WHERE w.class = 'operator' AND o.opcnamespace = n.oid AND o.opcname = w.name
        UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.oid FROM pg_catalog.pg_opfamily o WHERE w.class = 'operator' AND o.opfnamespace = n.oid AND o.opfname = w.name
        UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid FROM pg_catalog.pg_collation c WHERE w.class = 'other' AND c.collnamespace = n.oid AND c.collname = w.name
        UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid FROM pg_catalog.pg_ts_config c WHERE w.class = 'other' AND c.cfgnamespace = n.oid AND c.cfgname = w.name
        UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, c.oid FROM pg_catalog.pg_ts_dict c WHERE w.class = 'other' AND c.dictnamespace = n.oid AND c.dictname = w.name
    ) x
), consists AS (
    -- What these consist of: the CHECKs of domains, and the functions, types and operators that PostgreSQL knows they need.
    SELECT u.classid, u.objid FROM used u
    UNION
    SELECT x.classid, x.objid FROM consists c, LATERAL (
        SELECT d.refclassid AS classid, d.refobjid AS objid FROM pg_catalog.pg_depend d
        WHERE d.classid = c.classid AND d.objid = c.objid AND d.deptype = 'n' AND d.refobjid >= 16384
          AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                               'pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_opfamily'::pg_catalog.regclass)
        UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint k
                  WHERE c.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND k.contypid = c.objid
    ) x
), owned AS MATERIALIZED (
    SELECT c.classid, c.objid, o.owner, o.schema FROM consists c, LATERAL (
        SELECT t.typowner AS owner, t.typnamespace AS schema FROM pg_catalog.pg_type t WHERE c.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = c.objid
        UNION ALL SELECT p.proowner, p.pronamespace FROM pg_catalog.pg_proc p WHERE c.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = c.objid
        UNION ALL SELECT o.oprowner, o.oprnamespace FROM pg_catalog.pg_operator o WHERE c.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid = c.objid
        UNION ALL SELECT o.opcowner, o.opcnamespace FROM pg_catalog.pg_opclass o WHERE c.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND o.oid = c.objid
        UNION ALL SELECT o.opfowner, o.opfnamespace FROM pg_catalog.pg_opfamily o WHERE c.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND o.oid = c.objid
        UNION ALL SELECT l.collowner, l.collnamespace FROM pg_catalog.pg_collation l WHERE c.classid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND l.oid = c.objid
        UNION ALL SELECT s.cfgowner, s.cfgnamespace FROM pg_catalog.pg_ts_config s WHERE c.classid = 'pg_catalog.pg_ts_config'::pg_catalog.regclass AND s.oid = c.objid
        UNION ALL SELECT s.dictowner, s.dictnamespace FROM pg_catalog.pg_ts_dict s WHERE c.classid = 'pg_catalog.pg_ts_dict'::pg_catalog.regclass AND s.oid = c.objid
    ) o
), places AS (
    SELECT n.nspname, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace n
    WHERE (n.nspname = ANY ($4::text[]) OR n.oid IN (SELECT o.schema FROM owned o)) AND n.nspname NOT IN ('pg_catalog', 'information_schema')
), held AS MATERIALIZED (
    SELECT p.nspname, x.grantee AS oid FROM places p, me, LATERAL pg_catalog.aclexplode(p.nspacl) x
    WHERE me.rolsuper AND x.privilege_type = 'CREATE' AND x.grantee <> p.nspowner
), holders AS (
    SELECT h.oid FROM held h
), foreign_code AS (
    SELECT 'living' AS kind, NULL AS name, pg_catalog.pg_describe_object(o.classid, o.objid, 0) AS "table", o.owner FROM owned o
    UNION SELECT 'place', pg_catalog.quote_ident(p.nspname), '', p.nspowner FROM places p
    UNION SELECT 'CREATE', pg_catalog.quote_ident(h.nspname), '', h.oid FROM held h
)
