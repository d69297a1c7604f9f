-- One finding for each schema, and only where some comments exist or the schema is too large to remember. Columns whose names say what they
-- are (id, times, references) need none. Fifty tables in one draft: the words are a person's.
SELECT format('%I', schema) AS object, format('%I', schema) AS identity,
       format('%s of %s tables and %s columns of schema %I have no comment.', count(*) FILTER (WHERE NOT commented), count(*), sum(cardinality(bare)), schema) AS issue,
       jsonb_build_object('tables', count(*), 'tables_without', count(*) FILTER (WHERE NOT commented), 'columns_without', sum(cardinality(bare))) AS evidence,
       string_agg(CASE WHEN commented THEN '' ELSE format(E'COMMENT ON TABLE %s IS <WHAT A ROW OF IT IS>;\n', "table") END
                  || coalesce((SELECT string_agg(format(E'COMMENT ON COLUMN %s.%I IS <WHAT IT MEANS>;\n', "table", b), '' ORDER BY b) FROM unnest(bare) b), ''), '' ORDER BY name)
           FILTER (WHERE turn <= 50) AS draft, 'what to say: begin with the tables and columns that were asked about.' AS decide
FROM (
    SELECT t.*, row_number() OVER (PARTITION BY schema ORDER BY commented AND bare = '{}', name) AS turn
    FROM (
        -- Each list is read once and joined: a look at each column's comment by itself takes 1.4 s of 2,000 tables of ten.
        SELECT t.schema, t.name, t."table", coalesce(d.commented, false) AS commented, coalesce(w.bare, '{}') AS bare, d.objoid IS NOT NULL AS begun
        FROM (SELECT * FROM tables WHERE NOT is_frameworks) t
        LEFT JOIN (SELECT objoid, bool_or(objsubid = 0) AS commented FROM pg_description WHERE classoid = 'pg_class'::regclass GROUP BY objoid) d ON d.objoid = t.oid
        LEFT JOIN (
            SELECT c.oid, array_agg(c."column"::text) AS bare
            FROM columns c LEFT JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid AND d.objsubid = c.attnum
            WHERE d.objoid IS NULL AND c."column" !~* '^(id|.*_?id|name|title|description|created_?(at|by)|updated_?(at|by)|deleted_?(at|by))$'
            GROUP BY c.oid
        ) w ON w.oid = t.oid
    ) t
) t
GROUP BY schema
HAVING (count(*) >= 10 OR bool_or(begun)) AND (bool_or(NOT commented) OR sum(cardinality(bare)) > 0)
