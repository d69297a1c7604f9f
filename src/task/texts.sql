-- Texts of the catalog that are read again: views that read {table} (an oid), and its own objects of the kinds {kinds}. is_run: its functions run as soon as it
-- is read. A part of a WITH.
views AS MATERIALIZED (
    SELECT DISTINCT v.oid, w.oid AS rule, n.nspname, v.relname, v.relowner, v.relnamespace, v.reloptions, w.ev_action::text AS tree
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.rulename = '_RETURN'
    JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind = 'v' JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = {table} AND v.oid <> {table}
), texts AS MATERIALIZED (
    SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid AS of_class, v.rule AS of, v.tree, false AS is_run,
           pg_catalog.format('view %I.%I of %I', v.nspname, v.relname, pg_catalog.pg_get_userbyid(v.relowner)) AS what,
           pg_catalog.format('Let %1$I drop it (DROP VIEW %2$I.%3$I), and create it again afterwards', pg_catalog.pg_get_userbyid(v.relowner), v.nspname, v.relname) AS remedy
    FROM views v WHERE 'view' = ANY (ARRAY[{kinds}]::pg_catalog.text[])
    UNION ALL
    -- Whoever has the privilege TRIGGER may have made it.
    SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, g.oid, g.tgqual::text, false, pg_catalog.format('trigger %I', g.tgname),
           pg_catalog.format('Drop it (DROP TRIGGER %I ON %s), and create it again afterwards', g.tgname, g.tgrelid::pg_catalog.regclass)
    FROM pg_catalog.pg_trigger g WHERE 'trigger' = ANY (ARRAY[{kinds}]::pg_catalog.text[]) AND g.tgrelid = {table} AND NOT g.tgisinternal AND g.tgqual IS NOT NULL
    UNION ALL
    SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, f.oid, f.adbin::text, false, pg_catalog.format('the default of column %I', a.attname), 'Drop that default, and set it again afterwards'
    FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
    WHERE 'default' = ANY (ARRAY[{kinds}]::pg_catalog.text[]) AND f.adrelid = {table} AND a.attgenerated = ''
    UNION ALL
    SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid, pg_catalog.concat(p.polqual::text, p.polwithcheck::text), false, pg_catalog.format('policy %I', p.polname),
           'Its literals need other types, or a schema in which only its owner may CREATE'
    FROM pg_catalog.pg_policy p WHERE 'policy' = ANY (ARRAY[{kinds}]::pg_catalog.text[]) AND p.polrelid = {table}
    UNION ALL
    SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, s.stxexprs::text, false, pg_catalog.format('statistics %I', s.stxname),
           'Drop them (DROP STATISTICS), and create them again afterwards'
    FROM pg_catalog.pg_statistic_ext s WHERE 'statistics' = ANY (ARRAY[{kinds}]::pg_catalog.text[]) AND s.stxrelid = {table} AND s.stxexprs IS NOT NULL
    UNION ALL
    SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, '', true, pg_catalog.format('constraint %I', k.conname), ''
    FROM pg_catalog.pg_constraint k WHERE 'check' = ANY (ARRAY[{kinds}]::pg_catalog.text[]) AND k.conrelid = {table} AND k.contype IN ('c', 'x')
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, '', true, pg_catalog.format('index %s', i.indexrelid::pg_catalog.regclass), ''
    FROM pg_catalog.pg_index i WHERE 'index' = ANY (ARRAY[{kinds}]::pg_catalog.text[]) AND i.indrelid = {table}
)
