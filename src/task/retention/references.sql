-- Foreign keys into a table, into those above it and below it, and whether an index finds the rows that point at a deleted one.
-- $1: the table's oid.
WITH related AS (
    SELECT $1::oid AS oid
    UNION SELECT relid::oid FROM pg_partition_ancestors($1::oid::regclass)
    UNION SELECT relid::oid FROM pg_partition_tree($1::oid::regclass)
)
SELECT
    k.conname::text AS name,
    k.conrelid::regclass::text AS referencing,
    k.confrelid::regclass::text AS referenced,
    k.conrelid::bigint AS referencing_oid,
    format('%I.%I', n.nspname, c.relname) AS "table",
    k.confdeltype::text AS action,
    k.conrelid IN (SELECT oid FROM related) AS is_self,
    ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, position)
          JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY position) AS columns,
    ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.confkey) WITH ORDINALITY AS u (attnum, position)
          JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY position) AS referenced_columns,
    -- Referenced column on the left, as the key itself compares.
    (SELECT json_agg(json_build_object('name', format('OPERATOR(%I.%s)', s.nspname, o.oprname), 'left', format('%I.%I', ls.nspname, l.typname),
                                       'right', format('%I.%I', rs.nspname, r.typname)) ORDER BY position)
     FROM unnest(k.conpfeqop) WITH ORDINALITY AS u (operator, position) JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace s ON s.oid = o.oprnamespace
     JOIN pg_type l ON l.oid = o.oprleft JOIN pg_namespace ls ON ls.oid = l.typnamespace
     JOIN pg_type r ON r.oid = o.oprright JOIN pg_namespace rs ON rs.oid = r.typnamespace) AS operators,
    has_table_privilege(k.conrelid, 'SELECT') AS can_select,
    EXISTS (
        SELECT FROM pg_index x
        WHERE x.indrelid = k.conrelid AND x.indisvalid
          -- `fk = $1` is never true for NULL, so the planner can use a partial index that has all other values.
          AND (x.indpred IS NULL
               OR string_to_array(translate(pg_get_expr(x.indpred, x.indrelid), '()', ''), ' AND ')
                  <@ ARRAY(SELECT format('%I IS NOT NULL', a.attname) FROM pg_attribute a
                           WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)))
          -- Its leading columns are the key's, in any order.
          AND (SELECT array_agg(attnum ORDER BY attnum)
               FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS u (attnum, position)
               WHERE position <= cardinality(k.conkey))
              = (SELECT array_agg(attnum ORDER BY attnum) FROM unnest(k.conkey) AS u (attnum))) AS indexed
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid IN (SELECT oid FROM related)
  -- NOT ENFORCED since 18.
  AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
ORDER BY 2, 1
