SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       format('%I is written in camelCase, other time columns of schema %I in snake_case (%s of them): each query has to know which.', c."column", c.schema, s.snake) AS issue,
       jsonb_build_object('column', c."column", 'snake_case', s.snake, 'camel_case', s.camel) AS evidence,
       format('ALTER TABLE %s RENAME COLUMN %I TO %I;', c."table", c."column",
              n.wanted || CASE WHEN EXISTS (SELECT FROM columns o WHERE o.oid = c.oid AND o."column" = n.wanted) THEN '_2' ELSE '' END) AS fix
FROM columns c
JOIN (SELECT schema, count(*) FILTER (WHERE "column" ~ '^[a-z0-9]+_[a-z0-9_]+$') AS snake, count(*) FILTER (WHERE "column" ~ '^[a-z]+[a-z0-9]*[A-Z]') AS camel
      FROM columns WHERE type IN ('timestamptz', 'timestamp', 'date') GROUP BY schema) s ON s.schema = c.schema,
LATERAL (SELECT lower(regexp_replace(c."column", '([a-z0-9])([A-Z])', '\1_\2', 'g')) AS wanted) n
WHERE c.type IN ('timestamptz', 'timestamp', 'date') AND c."column" ~ '^[a-z]+[a-z0-9]*[A-Z]' AND s.snake > 0
