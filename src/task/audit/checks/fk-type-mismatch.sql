-- Of domains, the types below them. text and varchar are one type to an index. Of a key with several columns, the first that differs.
SELECT DISTINCT ON (f.oid) f."table" AS object, format('%s %I', f."table", f.conname) AS identity,
       format('%I is %s, and refers to %s.%I, which is %s: %s.', c."column", c.full_type, f.referenced, r.attname, t.referenced_type, CASE WHEN (c.type, y.typname) IN (('int2', 'int4'), ('int2', 'int8'), ('int4', 'int8')) THEN 'the first larger number cannot be referred to' ELSE 'each comparison converts one side, and an index may not serve' END) AS issue,
       jsonb_build_object('constraint', f.conname, 'type', c.full_type, 'referenced_type', t.referenced_type, 'rows', f.rows) AS evidence,
       CASE WHEN c.attgenerated = '' AND NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = f.conrelid AND c.attnum = ANY (p.partattrs::int2[]))
            THEN format(E'%sALTER TABLE %s ALTER COLUMN %I TYPE %s;', coalesce(d.remark, ''), f."table", c."column", t.referenced_type) END AS fix
FROM foreign_keys f CROSS JOIN LATERAL unnest(f.conkey, f.confkey) WITH ORDINALITY u(k, l, o) JOIN columns c ON c.oid = f.conrelid AND c.attnum = u.k JOIN pg_attribute r ON r.attrelid = f.confrelid AND r.attnum = u.l
JOIN pg_type x ON x.oid = c.atttypid JOIN pg_type y ON y.oid = r.atttypid LEFT JOIN hindrances d ON d.oid = c.oid AND d.attnum = c.attnum,
LATERAL (SELECT coalesce(nullif(x.typbasetype, 0), x.oid) AS one, coalesce(nullif(y.typbasetype, 0), y.oid) AS other, format_type(r.atttypid, r.atttypmod) AS referenced_type) t
WHERE t.one <> t.other AND NOT (t.one IN ('text'::regtype, 'varchar'::regtype) AND t.other IN ('text'::regtype, 'varchar'::regtype))
ORDER BY f.oid, u.o
