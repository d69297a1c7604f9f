-- Objects of the relation {relation} (an oid), each with what it is bound to in the catalog: `bound` has a word CATALOG/OID for each function, operator, type,
-- collation, operator class, text search object and relation that it names, and then those of its tree, in their order. {same}: oids of relations that stand for
-- each other, which are left out with their row types, and so are indexes: the relation that is replaced has others than the one that takes its place. It follows WITH.
--
-- `schema` is that of an object with a schema of its own, or NULL; `identity` says which object it is, where its name alone does not: CREATE OR REPLACE VIEW keeps the oid, and by a name
-- that means another schema by now it makes another view (seen on 14 to 18). Statistics are made anew.
--
-- The tree says what pg_depend does not: objects of PostgreSQL's own, and where and how often each is used. IS DISTINCT FROM, NULLIF, CASE x WHEN and JOIN USING have
-- no schema of their operator in the text: read again, a comparison of citext becomes pg_catalog's of text (seen on 14 and 18). Its order leaves out what a text may
-- bring back in another place: casts, which a list of varchar has once for all its elements or once for each; and types of PostgreSQL's own, which follow from the rest.
same AS (
    SELECT s.oid FROM pg_catalog.unnest(ARRAY[{same}]::pg_catalog.oid[]) s (oid) WHERE s.oid IS NOT NULL
), object AS (
    SELECT 'default' AS kind, pg_catalog.format('the default of column %I', a.attname) AS name, 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid AS classid, f.oid AS objid,
           f.adbin::text AS tree, NULL::pg_catalog.oid AS schema, '' AS identity
    FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum WHERE f.adrelid = {relation} AND a.attgenerated = ''
    UNION ALL
    SELECT 'policy', pg_catalog.format('policy %I', p.polname), 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid, pg_catalog.concat(p.polqual::text, p.polwithcheck::text), NULL, ''
    FROM pg_catalog.pg_policy p WHERE p.polrelid = {relation}
    UNION ALL
    SELECT 'trigger', pg_catalog.format('trigger %I', g.tgname), 'pg_catalog.pg_trigger'::pg_catalog.regclass, g.oid, g.tgqual::text, NULL, ''
    FROM pg_catalog.pg_trigger g WHERE g.tgrelid = {relation} AND NOT g.tgisinternal
    UNION ALL
    SELECT 'statistics', pg_catalog.format('statistics %I.%I', n.nspname, s.stxname), 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, s.stxexprs::text, s.stxnamespace, s.stxnamespace::text
    FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = {relation}
    UNION ALL
    SELECT CASE k.contype WHEN 'c' THEN 'check' ELSE 'foreign key' END, pg_catalog.format('constraint %I', k.conname), 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, k.conbin::text, NULL, ''
    FROM pg_catalog.pg_constraint k WHERE k.conrelid = {relation} AND k.contype IN ('c', 'f') AND k.conparentid = 0
    UNION ALL
    -- A new index has a name of its own.
    SELECT 'index', 'an index', 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, pg_catalog.concat(i.indexprs::text, i.indpred::text), NULL, ''
    FROM pg_catalog.pg_index i WHERE i.indrelid = {relation}
    UNION ALL
    SELECT 'view', pg_catalog.format('view %I.%I', n.nspname, v.relname), 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid, w.ev_action::text,
           v.relnamespace, pg_catalog.format('%s in %s of %s', v.oid, v.relnamespace, v.relowner)
    FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind = 'v' JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
    WHERE w.rulename = '_RETURN' AND v.oid <> {relation} AND EXISTS (
        SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = {relation})
), found AS (
    SELECT o.kind, o.name, o.schema, o.identity, ARRAY(
        SELECT pg_catalog.format('%s/%s', u.classid, u.objid) FROM (
            SELECT DISTINCT 0 AS place, 0 AS nth, d.refclassid AS classid, d.refobjid AS objid FROM pg_catalog.pg_depend d
            WHERE d.classid = o.classid AND d.objid = o.objid AND d.deptype IN ('n', 'a')
              AND d.refclassid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                  'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_collation'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass,
                  'pg_catalog.pg_opfamily'::pg_catalog.regclass, 'pg_catalog.pg_ts_config'::pg_catalog.regclass, 'pg_catalog.pg_ts_dict'::pg_catalog.regclass)
            UNION ALL
            SELECT m.place, y.nth, f.classid, y.oid::pg_catalog.oid
            FROM pg_catalog.regexp_matches(
                -- What is a cast, by its syntax (1) or by none (2).
                pg_catalog.regexp_replace(o.tree, ':funcid [0-9]+ :funcresulttype [0-9]+ :funcretset [a-z]+ :funcvariadic [a-z]+ :funcformat [12] :funccollid [0-9]+ :inputcollid [0-9]+', '', 'g'),
                ':([a-z_]+) (?:[(]o )?([0-9][0-9 ]*)', 'g') WITH ORDINALITY AS m(found, place)
            JOIN (VALUES ('opno', 'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid), ('opnos', 'pg_catalog.pg_operator'::pg_catalog.regclass), ('eqop', 'pg_catalog.pg_operator'::pg_catalog.regclass),
                ('sortop', 'pg_catalog.pg_operator'::pg_catalog.regclass), ('cycle_mark_neop', 'pg_catalog.pg_operator'::pg_catalog.regclass), ('funcid', 'pg_catalog.pg_proc'::pg_catalog.regclass),
                ('aggfnoid', 'pg_catalog.pg_proc'::pg_catalog.regclass), ('winfnoid', 'pg_catalog.pg_proc'::pg_catalog.regclass), ('tsmhandler', 'pg_catalog.pg_proc'::pg_catalog.regclass),
                ('inputcollid', 'pg_catalog.pg_collation'::pg_catalog.regclass), ('inputcollids', 'pg_catalog.pg_collation'::pg_catalog.regclass), ('relid', 'pg_catalog.pg_class'::pg_catalog.regclass),
                ('consttype', 'pg_catalog.pg_type'::pg_catalog.regclass), ('resulttype', 'pg_catalog.pg_type'::pg_catalog.regclass)) f (field, classid) ON f.field = m.found[1],
            LATERAL pg_catalog.string_to_table(pg_catalog.btrim(m.found[2]), ' ') WITH ORDINALITY AS y(oid, nth)
            WHERE y.oid <> '0' AND (f.classid <> 'pg_catalog.pg_type'::pg_catalog.regclass OR y.oid::bigint >= 16384)
        ) u
        LEFT JOIN pg_catalog.pg_class c ON u.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = u.objid
        LEFT JOIN pg_catalog.pg_type t ON u.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = u.objid
        LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
        WHERE (c.oid IS NULL OR c.relkind NOT IN ('i', 'I') AND c.oid NOT IN (SELECT oid FROM same) AND c.oid IS DISTINCT FROM o.view)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_class r WHERE r.oid IN (SELECT oid FROM same) AND r.reltype IN (t.oid, e.oid))
        ORDER BY u.place, u.nth, u.classid, u.objid) AS bound
    FROM (SELECT o.*, CASE o.kind WHEN 'view' THEN (SELECT w.ev_class FROM pg_catalog.pg_rewrite w WHERE w.oid = o.objid) END AS view FROM object o) o
    WHERE o.kind = ANY (ARRAY[{kinds}]::pg_catalog.text[])
)
