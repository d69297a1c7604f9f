-- quote_ident() quotes more than must be: "position", "time" and letters that are not ASCII need nothing as the name of a table or column.
-- camelCase that most names of several words have is the schema's convention. What a framework manages is mapped there, and never renamed here.
SELECT i."table" AS object, i.identity,
       format('%s %I must be quoted in every query, and written in exactly this way.', i.kind, i.name) AS issue,
       jsonb_build_object('name', i.name) AS evidence,
       CASE WHEN f.framework IS NULL THEN format('ALTER TABLE %s RENAME %sTO %I;', i."table", CASE i.kind WHEN 'Column' THEN format('COLUMN %I ', i.name) ELSE '' END,
              w.plain || CASE WHEN quote_ident(w.plain) <> w.plain OR w.plain = ANY (i.others) THEN '_' || substr(md5(i.name), 1, 6) ELSE '' END) END AS fix,
       CASE WHEN f.framework IS NOT NULL THEN format('whether its model is given another name. %s manages the names of this schema: rename it there, with a migration, and not in the database.', f.framework) END AS decide,
       CASE WHEN i.name ~ '^[A-Za-z][A-Za-z0-9]*$' AND i.name ~ '[A-Z]' THEN format('names of several words in schema %I have capitals', i.schema) END AS convention, n.sharing, n.siblings
FROM (
    WITH odd AS (
        SELECT n.name FROM (SELECT name FROM tables UNION SELECT "column" FROM columns) n LEFT JOIN pg_get_keywords() k ON k.word = n.name
        WHERE n.name !~ '^([a-z_]|[^[:ascii:]])([a-z0-9_$]|[^[:ascii:]])*$' OR k.catcode IN ('R', 'T')
    )
    SELECT 'Table' AS kind, t.schema, t.name::text, t."table", t."table" AS identity, ARRAY(SELECT c.relname::text FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace WHERE s.schema = t.schema) AS others
    FROM tables t WHERE EXISTS (SELECT FROM odd WHERE odd.name = t.name) AND NOT t.is_frameworks
    UNION ALL
    SELECT 'Column', c.schema, c."column"::text, c."table", format('%s.%I', c."table", c."column"), ARRAY(SELECT o."column"::text FROM columns o WHERE o.oid = c.oid)
    FROM columns c WHERE c."column" IN (SELECT name FROM odd) AND NOT c.is_frameworks
) i
LEFT JOIN frameworks f ON f.schema = i.schema
LEFT JOIN (
    SELECT schema, count(*) FILTER (WHERE name ~ '^[A-Za-z][A-Za-z0-9]*$' AND name ~ '[A-Z]') AS sharing, count(*) FILTER (WHERE name ~ '[A-Z]|._.') AS siblings
    FROM (SELECT schema, name::text AS name FROM tables WHERE NOT is_frameworks UNION ALL SELECT schema, "column" FROM columns WHERE NOT is_frameworks) all_names GROUP BY schema
) n ON n.schema = i.schema,
LATERAL (SELECT trim(BOTH '_' FROM regexp_replace(lower(regexp_replace(i.name, '([a-z0-9])([A-Z])', '\1_\2', 'g')), '[^a-z0-9_]+', '_', 'g')) AS snake) s,
LATERAL (SELECT left(CASE WHEN s.snake ~ '^[a-z]' THEN s.snake ELSE 'x_' || s.snake END, 50) AS plain) w
