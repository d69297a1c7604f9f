-- One for each schema, and only where comments are begun or the schema is larger than people keep in their heads. Columns that say what they
-- are (id, times, references) need none. Fifty tables in one fix.
SELECT format('%I', schema) AS object, format('%I', schema) AS identity,
       format('%s of %s tables and %s columns of schema %I have no comment.', count(*) FILTER (WHERE NOT commented), count(*), sum(cardinality(bare)), schema) AS issue,
       jsonb_build_object('tables', count(*), 'tables_without', count(*) FILTER (WHERE NOT commented), 'columns_without', sum(cardinality(bare))) AS evidence,
       string_agg(CASE WHEN commented THEN '' ELSE format(E'COMMENT ON TABLE %s IS ''what a row of it is: to be written'';\n', "table") END
                  || coalesce((SELECT string_agg(format(E'COMMENT ON COLUMN %s.%I IS ''what it means: to be written'';\n', "table", b), '' ORDER BY b) FROM unnest(bare) b), ''), '' ORDER BY name)
           FILTER (WHERE turn <= 50) AS fix
FROM (
    SELECT t.*, row_number() OVER (PARTITION BY schema ORDER BY commented AND bare = '{}', name) AS turn
    FROM (
        SELECT t.schema, t.name, t."table", obj_description(t.oid, 'pg_class') IS NOT NULL AS commented,
               coalesce((SELECT array_agg(c."column"::text) FROM columns c WHERE c.oid = t.oid AND col_description(c.oid, c.attnum) IS NULL
                         AND c."column" !~* '^(id|.*_?id|name|title|description|created_?(at|by)|updated_?(at|by)|deleted_?(at|by))$'), '{}') AS bare,
               EXISTS (SELECT FROM pg_description d WHERE d.classoid = 'pg_class'::regclass AND d.objoid = t.oid) AS begun
        FROM tables t
    ) t
) t
GROUP BY schema
HAVING (count(*) >= 10 OR bool_or(begun)) AND (bool_or(NOT commented) OR sum(cardinality(bare)) > 0)
