-- Which of these names a database has, what objects they are, and whose: $1 schemas (empty: the name is a schema's), $2 names.
SELECT DISTINCT w.schema, w.name, k.class, r.rolname::pg_catalog.text
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) w(schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = CASE WHEN w.schema = '' THEN w.name ELSE w.schema END
CROSS JOIN LATERAL (
    SELECT 'schema' AS class, n.nspowner AS owner WHERE w.schema = ''
    UNION ALL SELECT 'relation', c.relowner FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = w.name AND w.schema <> ''
    UNION ALL SELECT 'type', t.typowner FROM pg_catalog.pg_type t WHERE t.typnamespace = n.oid AND t.typname = w.name AND w.schema <> ''
    UNION ALL SELECT 'routine', p.proowner FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid AND p.proname = w.name AND w.schema <> ''
    UNION ALL SELECT 'operator', o.oprowner FROM pg_catalog.pg_operator o WHERE o.oprnamespace = n.oid AND o.oprname = w.name AND w.schema <> ''
    UNION ALL SELECT 'operator', x.opcowner FROM pg_catalog.pg_opclass x WHERE x.opcnamespace = n.oid AND x.opcname = w.name AND w.schema <> ''
    UNION ALL SELECT 'operator', f.opfowner FROM pg_catalog.pg_opfamily f WHERE f.opfnamespace = n.oid AND f.opfname = w.name AND w.schema <> ''
    UNION ALL SELECT 'statistics', s.stxowner FROM pg_catalog.pg_statistic_ext s WHERE s.stxnamespace = n.oid AND s.stxname = w.name AND w.schema <> ''
    UNION ALL SELECT 'other', l.collowner FROM pg_catalog.pg_collation l WHERE l.collnamespace = n.oid AND l.collname = w.name AND w.schema <> ''
    UNION ALL SELECT 'other', s.cfgowner FROM pg_catalog.pg_ts_config s WHERE s.cfgnamespace = n.oid AND s.cfgname = w.name AND w.schema <> ''
    UNION ALL SELECT 'other', s.dictowner FROM pg_catalog.pg_ts_dict s WHERE s.dictnamespace = n.oid AND s.dictname = w.name AND w.schema <> ''
    UNION ALL SELECT 'other', 0::pg_catalog.oid FROM pg_catalog.pg_ts_parser s WHERE s.prsnamespace = n.oid AND s.prsname = w.name AND w.schema <> ''
    UNION ALL SELECT 'other', 0::pg_catalog.oid FROM pg_catalog.pg_ts_template s WHERE s.tmplnamespace = n.oid AND s.tmplname = w.name AND w.schema <> ''
) k LEFT JOIN pg_catalog.pg_roles r ON r.oid = k.owner
