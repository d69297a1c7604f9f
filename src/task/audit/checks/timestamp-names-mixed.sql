-- The style that fewer time columns of the schema have breaks its convention. Names that a framework manages are mapped there.
SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       format('%I is written in %s, other time columns of schema %I in %s (%s of them): each query has to know which.', c."column", m.style, c.schema, m.other, m.others) AS issue,
       jsonb_build_object('column', c."column", 'snake_case', s.snake, 'camel_case', s.camel) AS evidence,
       CASE WHEN m.style = 'camelCase' AND f.framework IS NULL
            THEN format('ALTER TABLE %s RENAME COLUMN %I TO %I;', c."table", c."column", n.wanted || CASE WHEN EXISTS (SELECT FROM columns o WHERE o.oid = c.oid AND o."column" = n.wanted) THEN '_2' ELSE '' END) END AS fix,
       CASE WHEN f.framework IS NOT NULL THEN format('whether its model is given another name. %s manages the names of this schema: rename it there, with a migration, and not in the database.', f.framework)
            WHEN m.style <> 'camelCase' THEN 'whether the convention of the schema is worth a name that has to be quoted.' END AS decide
FROM columns c
JOIN (SELECT schema, count(*) FILTER (WHERE "column" ~ '^[a-z0-9]+_[a-z0-9_]+$') AS snake, count(*) FILTER (WHERE "column" ~ '^[a-z]+[a-z0-9]*[A-Z]') AS camel
      FROM columns WHERE type IN ('timestamptz', 'timestamp', 'date') AND NOT is_frameworks GROUP BY schema) s ON s.schema = c.schema
LEFT JOIN frameworks f ON f.schema = c.schema,
LATERAL (SELECT lower(regexp_replace(c."column", '([a-z0-9])([A-Z])', '\1_\2', 'g')) AS wanted) n,
LATERAL (SELECT CASE WHEN s.camel > s.snake THEN 'snake_case' ELSE 'camelCase' END AS style, CASE WHEN s.camel > s.snake THEN 'camelCase' ELSE 'snake_case' END AS other, greatest(s.camel, s.snake) AS others) m
WHERE c.type IN ('timestamptz', 'timestamp', 'date') AND NOT c.is_frameworks AND s.snake > 0 AND s.camel > 0
  AND c."column" ~ CASE m.style WHEN 'camelCase' THEN '^[a-z]+[a-z0-9]*[A-Z]' ELSE '^[a-z0-9]+_[a-z0-9_]+$' END
