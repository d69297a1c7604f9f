), typed AS (
    SELECT y.*, s.schema, format('%I.%I', s.schema, y.typname) AS name, y.typtype::text AS class,
           CASE WHEN y.typcollation <> 0 AND y.typcollation IS DISTINCT FROM b.typcollation AND y.typtype <> 'b' THEN (SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = y.typcollation) END AS collation
    FROM pg_type y JOIN schemas s ON s.oid = y.typnamespace LEFT JOIN pg_type b ON b.oid = y.typbasetype
    WHERE NOT EXISTS (SELECT FROM members m WHERE m.classid = 'pg_type'::regclass AND m.objid = y.oid)
      -- Not arrays, nor the types of rows and multiranges: those come with something else.
      AND (y.typtype IN ('e', 'd', 'r') OR y.typtype = 'b' AND y.typsubscript::text !~ 'array_subscript_handler' OR y.typtype = 'p' AND NOT y.typisdefined OR y.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = y.typrelid AND c.relkind = 'c'))
), labels AS (
    SELECT enumtypid AS oid, jsonb_agg(enumlabel ORDER BY enumsortorder) AS labels, string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) AS listed FROM pg_enum GROUP BY enumtypid
), checked AS (
    SELECT k.contypid AS oid, string_agg(format('CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ' ' ORDER BY k.conname) AS checks,
           string_agg(format('%I: %s', k.conname, c.description), ', ' ORDER BY k.conname) FILTER (WHERE c.description IS NOT NULL) AS comments,
           string_agg(format('COMMENT ON CONSTRAINT %I ON DOMAIN %s IS %L;', k.conname, y.name, c.description), E'\n' ORDER BY k.conname) FILTER (WHERE c.description IS NOT NULL) AS comment_on
    FROM pg_constraint k JOIN typed y ON y.oid = k.contypid LEFT JOIN pg_description c ON c.classoid = 'pg_constraint'::regclass AND c.objoid = k.oid WHERE k.contype = 'c' GROUP BY k.contypid
), of_types (rank, kind, name, parent, classid, oid, subid, address, granted, is_inner, facts, "create", sets) AS (
    SELECT 10, 'schema', format('%I', schema), NULL, 'pg_namespace'::regclass, oid, 0, format('SCHEMA %I', schema), format('ON SCHEMA %I', schema), false, '{}'::jsonb, format('CREATE SCHEMA %I;', schema), '{}'::jsonb FROM schemas
    UNION ALL
    -- Its version is that of the server's packages, and its comment comes with it.
    SELECT 20, 'extension', format('%I', e.extname), NULL, 'pg_extension'::regclass, e.oid, 0, NULL, NULL, false, jsonb_build_object('schema', n.nspname), format('CREATE EXTENSION %I SCHEMA %I;', e.extname, n.nspname),
           jsonb_build_object('schema', CASE WHEN e.extrelocatable THEN format('ALTER EXTENSION %I SET SCHEMA %I;', e.extname, n.nspname) END)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql'
    UNION ALL
    SELECT 25, 'collation', format('%I.%I', s.schema, c.collname), NULL, 'pg_collation'::regclass, c.oid, 0, format('COLLATION %I.%I', s.schema, c.collname), NULL, false,
           jsonb_build_object('provider', CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' WHEN 'd' THEN 'default' ELSE 'libc' END, 'locale', l.locale, 'deterministic', c.collisdeterministic, 'rules', to_jsonb(c) ->> 'collicurules'),
           format('CREATE COLLATION %I.%I (provider = %s, locale = %L, deterministic = %s);', s.schema, c.collname, CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, l.locale, c.collisdeterministic::text), '{}'
    FROM pg_collation c JOIN schemas s ON s.oid = c.collnamespace,
    LATERAL (SELECT concat_ws(', ', coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale'), c.collcollate, nullif(c.collctype, c.collcollate)) AS locale) l
    WHERE NOT EXISTS (SELECT FROM members m WHERE m.classid = 'pg_collation'::regclass AND m.objid = c.oid)
    UNION ALL
    SELECT 30, 'type', y.name, NULL, 'pg_type'::regclass, y.oid, 0, format('%s %s', CASE y.class WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, y.name), format('ON TYPE %s', y.name), false,
           jsonb_build_object('sort', CASE y.class WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite' WHEN 'r' THEN 'range' WHEN 'b' THEN 'base' ELSE 'shell' END, 'labels', e.labels,
                              'base type', CASE y.class WHEN 'd' THEN format_type(y.typbasetype, y.typtypmod) END, 'collation', CASE WHEN y.class = 'd' THEN y.collation END, 'default', CASE y.class WHEN 'd' THEN y.typdefault END, 'not null', CASE y.class WHEN 'd' THEN y.typnotnull END, 'checks', k.checks, 'comments of checks', k.comments,
                              'attributes', CASE y.class WHEN 'c' THEN (SELECT string_agg(format('%I %s%s', c.attname, c.type, coalesce(' COLLATE ' || c.collation, '')), ', ' ORDER BY c.attnum) FROM columns c WHERE c.oid = y.typrelid) END,
                              'definition', CASE y.class
                                  WHEN 'r' THEN (SELECT jsonb_build_object('subtype', format_type(r.rngsubtype, NULL), 'operator class', o.opcname, 'collation', CASE WHEN r.rngcollation <> t.typcollation THEN l.collname END, 'canonical', r.rngcanonical::text, 'difference', r.rngsubdiff::text, 'multirange', format_type(r.rngmultitypid, NULL))
                                                 FROM pg_range r JOIN pg_opclass o ON o.oid = r.rngsubopc JOIN pg_type t ON t.oid = r.rngsubtype LEFT JOIN pg_collation l ON l.oid = r.rngcollation WHERE r.rngtypid = y.oid)
                                  WHEN 'b' THEN jsonb_build_object('input', y.typinput::text, 'output', y.typoutput::text, 'receive', y.typreceive::text, 'send', y.typsend::text, 'modifiers in', y.typmodin::text, 'modifiers out', y.typmodout::text, 'analyze', y.typanalyze::text, 'subscript', y.typsubscript::text, 'length', y.typlen,
                                                                   'by value', y.typbyval, 'alignment', y.typalign, 'storage', y.typstorage, 'category', y.typcategory, 'preferred', y.typispreferred, 'delimiter', y.typdelim, 'element', CASE WHEN y.typelem <> 0 THEN format_type(y.typelem, NULL) END, 'default', y.typdefault) END),
           CASE y.class WHEN 'e' THEN format('CREATE TYPE %s AS ENUM (%s);', y.name, e.listed)
                        WHEN 'd' THEN format('CREATE DOMAIN %s AS %s%s%s%s%s;', y.name, format_type(y.typbasetype, y.typtypmod), coalesce(' COLLATE ' || y.collation, ''), coalesce(' DEFAULT ' || y.typdefault, ''), CASE WHEN y.typnotnull THEN ' NOT NULL' ELSE '' END, coalesce(' ' || k.checks, ''))
                        WHEN 'c' THEN format('CREATE TYPE %s AS (%s);', y.name, (SELECT string_agg(format('%I %s%s', c.attname, c.type, coalesce(' COLLATE ' || c.collation, '')), ', ' ORDER BY c.attnum) FROM columns c WHERE c.oid = y.typrelid)) END,
           CASE y.class WHEN 'd' THEN jsonb_build_object('default', format('ALTER DOMAIN %s %s;', y.name, coalesce('SET DEFAULT ' || y.typdefault, 'DROP DEFAULT')), 'not null', format('ALTER DOMAIN %s %s NOT NULL;', y.name, CASE WHEN y.typnotnull THEN 'SET' ELSE 'DROP' END), 'comments of checks', k.comment_on) ELSE '{}' END
    FROM typed y LEFT JOIN labels e ON e.oid = y.oid LEFT JOIN checked k ON k.oid = y.oid
