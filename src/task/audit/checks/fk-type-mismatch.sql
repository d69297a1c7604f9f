-- Of domains, the types below them, however many domains there are in between. text and varchar are one type to an index. Of a key with several columns, all that
-- differ are changed at once: one rewrite. A partition's column has the type of its table's, and a domain's CHECKs would go with the domain: there a person decides.
WITH RECURSIVE domains AS (
    SELECT y.oid, y.typbasetype AS base FROM pg_type y WHERE y.typtype = 'd'
    UNION ALL
    SELECT d.oid, y.typbasetype FROM domains d JOIN pg_type y ON y.oid = d.base AND y.typtype = 'd'
), bases AS (
    SELECT d.oid, d.base FROM domains d JOIN pg_type y ON y.oid = d.base AND y.typtype <> 'd'
), pairs AS MATERIALIZED (
    -- Materialized: else the joins below run once for each key.
    SELECT f.oid, f.conname, f.conrelid, f.confrelid, f.root, f."table", f.referenced, f.rows, u.* FROM foreign_keys f CROSS JOIN LATERAL unnest(f.conkey, f.confkey) WITH ORDINALITY u(k, l, o)
)
SELECT f."table" AS object, format('%s %I', f."table", f.conname) AS identity,
       string_agg(format('%I is %s, and refers to %s.%I, which is %s: %s.', c.attname, t.type, f.referenced, r.attname, t.referenced_type, CASE WHEN (b.one, b.other) IN (('int2'::regtype, 'int4'::regtype), ('int2'::regtype, 'int8'::regtype), ('int4'::regtype, 'int8'::regtype)) THEN 'the first larger number cannot be referred to' ELSE 'each comparison converts one side, and an index may not serve' END), ' ' ORDER BY f.o) AS issue,
       jsonb_build_object('constraint', f.conname, 'type', string_agg(t.type, ', ' ORDER BY f.o), 'referenced_type', string_agg(t.referenced_type, ', ' ORDER BY f.o), 'rows', f.rows) AS evidence,
       CASE WHEN f.root = f.conrelid AND bool_and(c.attgenerated = '' AND x.typtype <> 'd' AND NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = f.conrelid AND c.attnum = ANY (p.partattrs::int2[])))
            THEN coalesce(string_agg(DISTINCT d.remark, ''), '') || format('ALTER TABLE %s %s;', f."table", string_agg(format('ALTER COLUMN %I TYPE %s', c.attname, t.referenced_type), ', ' ORDER BY f.o)) END AS fix,
       CASE WHEN bool_or(x.typtype = 'd') THEN format('what becomes of %s: a column of the type %s has none of its CHECKs. Change the domain, or give the column a type and CHECKs of its own.', string_agg(t.type, ', ' ORDER BY f.o) FILTER (WHERE x.typtype = 'd'), string_agg(t.referenced_type, ', ' ORDER BY f.o) FILTER (WHERE x.typtype = 'd')) END AS decide
FROM pairs f JOIN pg_attribute c ON c.attrelid = f.conrelid AND c.attnum = f.k JOIN pg_attribute r ON r.attrelid = f.confrelid AND r.attnum = f.l
JOIN pg_type x ON x.oid = c.atttypid LEFT JOIN bases m ON m.oid = c.atttypid LEFT JOIN bases n ON n.oid = r.atttypid LEFT JOIN hindrances d ON d.oid = c.attrelid AND d.attnum = c.attnum,
LATERAL (SELECT coalesce(m.base, c.atttypid) AS one, coalesce(n.base, r.atttypid) AS other) b,
LATERAL (SELECT format_type(c.atttypid, c.atttypmod) AS type, format_type(r.atttypid, r.atttypmod) AS referenced_type) t
WHERE b.one <> b.other AND NOT (b.one IN ('text'::regtype, 'varchar'::regtype) AND b.other IN ('text'::regtype, 'varchar'::regtype))
GROUP BY f.oid, f."table", f.conname, f.referenced, f.conrelid, f.root, f.rows
