-- Views that read {table} (an oid), and its own objects of the kinds {kinds}. `refused` has a sentence for each of them that, made again from its text by this
-- session, runs code of others with more rights than theirs. It follows rights.sql and texts.sql, which are parts of a
-- WITH RECURSIVE.
--
-- CREATE VIEW and CREATE TRIGGER with WHEN run none of the functions that the text calls, and compute nothing that is constant. They read literals, though: '(5)'::mal.c calls the input
-- function of that type, which calls those of its columns, and a domain tries its CHECKs (seen on 14 and 18: the function of a role without any right on the
-- table ran as the superuser). To write a text, PostgreSQL calls output functions: no domain has one of its own, and only a superuser makes a
-- type that has. So what counts is the types of the literals (:consttype in the tree), and what these consist of: whoever owns a part of it can put
-- code there, or rename it and put another in its place, and so can the owner of its schema and that of its extension (ALTER EXTENSION ... SET SCHEMA).
-- A literal whose type is not known yet (705) may get that of an argument of any function or operator of its name, also of one that is created
-- a moment later: so nobody with fewer rights may own the schema of one that the text calls, or CREATE there, or have another of its name there. The same goes for a text whose
-- functions run as soon as it is read (is_run): a CHECK and an index, for which PostgreSQL computes what is constant, and a condition in a query; all types that it names count. What a
-- text is bound to is known afterwards only (bound.sql), and what has run by then is not undone by a rollback (COPY ... TO PROGRAM).
--
-- The owner of the table and that of its schema do not count here: they put code into the table itself, and are named, or refused, as its owners are.
, holders AS (
    -- Who may create a function beside another.
    SELECT DISTINCT a.grantee AS oid FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE'
), parsed AS (
    (
        SELECT x.of_class, x.of, 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid AS classid, m.found[1]::pg_catalog.oid AS objid
        FROM texts x, LATERAL pg_catalog.regexp_matches(x.tree, ':consttype ([0-9]+)', 'g') AS m(found)
        UNION
        SELECT x.of_class, x.of, d.refclassid, d.refobjid
        FROM texts x JOIN pg_catalog.pg_depend d ON d.classid = x.of_class AND d.objid = x.of
        WHERE x.tree ~ ':consttype 705 ' AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)
           OR x.is_run AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
    )
    UNION
    SELECT p.of_class, p.of, x.classid, x.objid FROM parsed p, LATERAL (
        SELECT d.refclassid AS classid, d.refobjid AS objid FROM pg_catalog.pg_depend d
        WHERE d.classid = p.classid AND d.objid = p.objid
          AND d.refclassid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                               'pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_opfamily'::pg_catalog.regclass)
        UNION ALL
        SELECT p.classid, t.oid FROM pg_catalog.pg_type y, LATERAL (
            SELECT y.typbasetype AS oid UNION ALL SELECT y.typelem
            UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = y.oid UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = y.oid
        ) t WHERE p.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND y.oid = p.objid AND t.oid <> 0
        UNION ALL
        SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint k
        WHERE p.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND k.contypid = p.objid
        UNION ALL
        SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, a.amproc::pg_catalog.oid FROM pg_catalog.pg_amproc a
        WHERE p.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND a.amprocfamily = p.objid
    ) x
), parts AS (
    SELECT p.of_class, p.of, p.classid, p.objid, o.owner, o.schema FROM parsed p, LATERAL (
        SELECT t.typowner AS owner, t.typnamespace AS schema FROM pg_catalog.pg_type t WHERE p.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = p.objid
        UNION ALL SELECT f.proowner, f.pronamespace FROM pg_catalog.pg_proc f WHERE p.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND f.oid = p.objid
        UNION ALL SELECT o.oprowner, o.oprnamespace FROM pg_catalog.pg_operator o WHERE p.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid = p.objid
        UNION ALL SELECT c.opcowner, c.opcnamespace FROM pg_catalog.pg_opclass c WHERE p.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND c.oid = p.objid
        UNION ALL SELECT f.opfowner, f.opfnamespace FROM pg_catalog.pg_opfamily f WHERE p.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND f.oid = p.objid
    ) o
), called AS (
    -- What a text calls whose names must not get another meaning before it is compared.
    SELECT x.of_class, x.of, pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0) AS what, d.refclassid AS classid, d.refobjid AS objid, c.name, c.schema
    FROM texts x JOIN pg_catalog.pg_depend d ON d.classid = x.of_class AND d.objid = x.of, LATERAL (
        SELECT f.proname AS name, f.pronamespace AS schema FROM pg_catalog.pg_proc f WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND f.oid = d.refobjid
        UNION ALL SELECT o.oprname, o.oprnamespace FROM pg_catalog.pg_operator o WHERE d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid = d.refobjid
    ) c WHERE x.is_run OR x.tree ~ ':consttype 705 '
), beside AS (
    -- Whoever may create a function or operator of that name there, or has one there already.
    SELECT c.of_class, c.of, pg_catalog.format('%s, beside which another can be made: REVOKE CREATE ON SCHEMA %I', c.what, n.nspname) AS part, a.grantee AS owner
    FROM called c JOIN pg_catalog.pg_namespace n ON n.oid = c.schema, pg_catalog.aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE'
    UNION
    SELECT c.of_class, c.of, pg_catalog.pg_describe_object(c.classid, o.oid, 0), o.owner FROM called c, LATERAL (
        SELECT f.oid, f.proowner AS owner FROM pg_catalog.pg_proc f
        WHERE c.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND f.proname = c.name AND f.pronamespace = c.schema AND f.oid <> c.objid
        UNION ALL SELECT p.oid, p.oprowner FROM pg_catalog.pg_operator p
        WHERE c.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND p.oprname = c.name AND p.oprnamespace = c.schema AND p.oid <> c.objid
    ) o
), placed AS (
    -- Who has the schema of what is named, or its extension, gives the name to something else: no privilege need be granted for that (nspacl is NULL), and none stops it.
    SELECT p.of_class, p.of, p.classid, p.objid, p.schema FROM parts p
    UNION
    SELECT c.of_class, c.of, c.classid, c.objid, c.schema FROM called c
), owned AS (
    SELECT p.of_class, p.of, pg_catalog.pg_describe_object(p.classid, p.objid, 0) AS part, p.owner FROM parts p
    UNION
    SELECT p.of_class, p.of, pg_catalog.format('schema %I', n.nspname), n.nspowner FROM placed p JOIN pg_catalog.pg_namespace n ON n.oid = p.schema
    UNION
    SELECT p.of_class, p.of, pg_catalog.format('extension %I', e.extname), e.extowner
    FROM placed p JOIN pg_catalog.pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.deptype = 'e' JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
    UNION
    SELECT b.of_class, b.of, b.part, b.owner FROM beside b
), whose AS (
    -- Objects of pg_database_owner belong to the database's owner, who is its only member.
    SELECT o.of_class, o.of, o.part, CASE WHEN r.rolname = 'pg_database_owner' THEN d.datdba ELSE o.owner END AS owner
    FROM owned o LEFT JOIN pg_catalog.pg_roles r ON r.oid = o.owner, this_database d
), owners_of_table AS (
    SELECT CASE WHEN r.rolname = 'pg_database_owner' THEN d.datdba ELSE r.oid END AS oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles r ON r.oid IN (c.relowner, n.nspowner), this_database d
    WHERE c.oid = {table}
), refused AS (
    SELECT x.of_class, x.of, pg_catalog.format(CASE WHEN x.is_run THEN '%s may call code of others with the rights of %I where its text is read again: %s%s'
        ELSE '%s uses the table, and pgtend would have to make it again from its text, whose literals call code of others with the rights of %I: %s. %s' END,
        x.what, me.rolname, f.parts, x.remedy) AS sentence
    FROM (
        SELECT w.of_class, w.of, pg_catalog.string_agg(DISTINCT pg_catalog.concat(w.part, CASE WHEN w.part ~ ': REVOKE' THEN ' FROM ' ELSE ' of ' END, coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC')), ', ') AS parts
        FROM whose w JOIN lesser l ON l.oid = w.owner LEFT JOIN pg_catalog.pg_roles r ON r.oid = w.owner
        WHERE w.owner NOT IN (SELECT o.oid FROM owners_of_table o) GROUP BY 1, 2
    ) f JOIN texts x ON x.of_class = f.of_class AND x.of = f.of, me
)
