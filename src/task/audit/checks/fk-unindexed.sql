-- An index serves if it is a btree or a hash, a column of the key leads it, and the planner uses it for the check that the server makes of the
-- referring rows when a referenced one goes. A partial index serves if it provably has every row with the key's value: WHERE column IS NOT NULL
-- does, another condition does not. Of a partitioned table, every partition needs one. Where the planner cannot be asked, the catalog alone
-- judges, and the finding says so.
WITH keys AS (
    SELECT DISTINCT ON (f.conrelid, f.columns) f.*, p.conpfeqop::oid[] AS operators, coalesce(to_jsonb(p) ->> 'conperiod', 'false') = 'true' AS over_period
    FROM foreign_keys f JOIN pg_constraint p ON p.oid = f.oid ORDER BY f.conrelid, f.columns, f.conname
), members AS (
    SELECT t.oid AS root, t.oid FROM all_tables t WHERE NOT t.partitioned
    UNION ALL
    SELECT p.root, p.oid FROM (SELECT root, oid FROM partitions UNION ALL SELECT branch, oid FROM branches) p JOIN all_tables t ON t.oid = p.root AND t.partitioned JOIN pg_class c ON c.oid = p.oid AND c.relkind = 'r'
), pairs AS MATERIALIZED (
    -- Materialized: else the joins below run once for each key (1 ms each).
    SELECT k.oid AS key, k.conrelid, k.confrelid, k.over_period, m.oid AS member, cardinality(k.conkey) AS width, u.*
    FROM keys k JOIN members m ON m.root = k.conrelid CROSS JOIN LATERAL unnest(k.conkey, k.confkey, k.operators) WITH ORDINALITY u(attnum, referenced, operator, place)
), parts AS (
    -- Each column of each key in each table where the server looks, with the condition that the server writes (generate_operator_clause in ruleutils.c).
    SELECT u.key, u.over_period, u.member, u.place, u.width, b.attnum, b.attname, b.attcollation, o.oid AS operator,
           format('%I.%I', rn.nspname, rt.typname) AS type,
           format('$%s%s OPERATOR(%I.%s) x.%I%s', u.place, CASE WHEN o.oprleft <> r.atttypid THEN format('::%I.%I', ln.nspname, lt.typname) END, n.nspname, o.oprname, b.attname,
                  CASE WHEN o.oprright <> b.atttypid THEN format('::%I.%I', gn.nspname, gt.typname) END) AS condition,
           y.oid IS NOT NULL AS is_converted
    FROM pairs u
    JOIN pg_attribute a ON a.attrelid = u.conrelid AND a.attnum = u.attnum
    JOIN pg_attribute b ON b.attrelid = u.member AND b.attname = a.attname AND b.attnum > 0
    JOIN pg_attribute r ON r.attrelid = u.confrelid AND r.attnum = u.referenced
    JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace n ON n.oid = o.oprnamespace
    JOIN pg_type rt ON rt.oid = r.atttypid JOIN pg_namespace rn ON rn.oid = rt.typnamespace
    JOIN pg_type lt ON lt.oid = o.oprleft JOIN pg_namespace ln ON ln.oid = lt.typnamespace
    JOIN pg_type gt ON gt.oid = o.oprright JOIN pg_namespace gn ON gn.oid = gt.typnamespace
    LEFT JOIN pg_cast y ON y.castsource = b.atttypid AND y.casttarget = o.oprright AND y.castsource <> y.casttarget AND y.castmethod = 'f'
), candidates AS (
    -- Indexes that a column of the key leads. What needs no planner: all rows, the key's columns first, in any order, and each with the check's operator.
    SELECT p.key, p.member, x.oid, min(x.name) AS name, bool_or(x.partial) AS partial, bool_or(x.place = 1 AND m.oid IS NOT NULL AND (x.sorting = 0 OR x.sorting = p.attcollation)) AS leads,
           NOT bool_or(x.partial) AND (bool_or(p.over_period) OR count(*) FILTER (WHERE x.place <= p.width AND m.oid IS NOT NULL AND (x.sorting = 0 OR x.sorting = p.attcollation)) = min(p.width)) AS certain
    FROM parts p
    JOIN (SELECT i.oid, i.indrelid, i.name, i.method, i.partial, u.*
          FROM indexes i CROSS JOIN LATERAL unnest(i.keys, i.indclass::oid[], i.indcollation::oid[]) WITH ORDINALITY u(attnum, class, sorting, place) WHERE i.indisvalid) x
        ON x.indrelid = p.member AND x.attnum = p.attnum AND (x.method IN ('btree', 'hash') OR p.over_period AND x.method = 'gist')
    JOIN pg_opclass c ON c.oid = x.class
    LEFT JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopopr = p.operator AND m.amoppurpose = 's'
    GROUP BY p.key, p.member, x.oid
    HAVING bool_or(x.place = 1)
), checked AS (
    SELECT p.key, p.member, min(p.width) AS width, string_agg(p.type, ', ' ORDER BY p.place) AS types, string_agg(p.condition, ' AND ' ORDER BY p.place) AS conditions,
           string_agg(format('%I', p.attname), ', ' ORDER BY p.place) AS columns, array_agg(format('%I IS NOT NULL', p.attname)) AS not_null, bool_or(p.is_converted) AS is_converted
    FROM parts p GROUP BY p.key, p.member
), judged AS (
    SELECT c.key, c.member, c.width, c.types, c.conditions, c.columns, c.is_converted, coalesce(bool_or(d.certain), false) AS certain, array_agg(d.name) FILTER (WHERE d.name IS NOT NULL) AS leading,
           coalesce(bool_or(d.leads AND (NOT d.partial OR string_to_array(translate(CASE WHEN d.partial THEN pg_get_expr(i.indpred, i.indrelid) END, '()', ''), ' AND ') <@ c.not_null)), false) AS serves_by_catalog
    FROM checked c LEFT JOIN candidates d ON d.key = c.key AND d.member = c.member LEFT JOIN pg_index i ON i.indexrelid = d.oid
    GROUP BY c.key, c.member, c.width, c.types, c.conditions, c.columns, c.is_converted
), lacking AS (
    SELECT j.key, count(*) AS tables, bool_or(j.is_converted) AS is_converted, left(string_agg(array_to_string(j.leading, ', '), ', ' ORDER BY c.relname) FILTER (WHERE NOT j.certain), 200) AS useless,
           jsonb_agg(jsonb_build_object(
               'reads', format('%I.%I', n.nspname, c.relname), 'reads_oid', c.oid::bigint, 'types', j.types, 'parameters', j.width, 'leading', coalesce(j.leading, '{}'),
               'check', format('SELECT 1 FROM ONLY %I.%I x WHERE %s', n.nspname, c.relname, j.conditions), 'serves_by_catalog', j.serves_by_catalog,
               'is_readable', has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'),
               'create', format('CREATE INDEX CONCURRENTLY ON %I.%I (%s);', n.nspname, c.relname, j.columns)) ORDER BY c.relname) FILTER (WHERE NOT j.certain) AS open
    FROM judged j JOIN pg_class c ON c.oid = j.member JOIN pg_namespace n ON n.oid = c.relnamespace
    GROUP BY j.key
)
SELECT k."table" AS object, format('%s(%s)', k."table", k.columns) AS identity,
       format('No index serves (%s), which references %s: each DELETE or key change of a row there reads all of %s (%s rows).%s', k.columns, k.referenced, k."table", k.rows,
              CASE WHEN l.useless <> '' THEN format(' Led by a column of the key, but of no use for that: %s.', l.useless) END)
           || CASE WHEN l.is_converted THEN ' The check converts the key to the type of the referenced column, and an index of the key does not know that: the two columns should have one type.' ELSE '' END AS issue,
       jsonb_build_object('constraint', k.conname, 'columns', k.columns, 'rows', k.rows) AS evidence,
       CASE WHEN NOT l.is_converted THEN format('CREATE INDEX %sON %s (%s);', CASE WHEN k.partitioned THEN '' ELSE 'CONCURRENTLY ' END, k."table", k.columns) END AS fix,
       CASE WHEN k.partitioned THEN 'SHARE on the table and its partitions: writes wait until it is built' END AS lock,
       CASE WHEN k.rows < 1000 THEN 'low' END AS level,
       jsonb_build_object('tables', l.tables, 'open', l.open) AS foreign_key
FROM keys k JOIN lacking l ON l.key = k.oid WHERE l.open IS NOT NULL
