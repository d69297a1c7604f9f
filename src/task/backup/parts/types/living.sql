-- What the types of these names are made of: $1 schemas, $2 names. Tables count as the types of their rows. Under an empty search_path.
SELECT n.nspname::text AS schema, t.typname::text AS name,
       CASE WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e') THEN 'e'
            WHEN t.typtype = 'e' THEN 'l' ELSE t.typtype::text END AS kind,
       CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
                      WHEN 'r' THEN (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = t.oid)
                      WHEN 'm' THEN (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngmultitypid = t.oid) END AS of,
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS attributes,
       ARRAY(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS types
FROM ROWS FROM (unnest($1::text[]), unnest($2::text[])) w(schema, name)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = w.name
