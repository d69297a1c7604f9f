-- A sample of some 5,000 rows, by pages from the whole table: what it does not hold is not seen. The limit is for rows that are narrower than was guessed: it must not cut the
-- last pages, which have the newest rows. `whole` in the evidence asks all rows. Only keys that are enforced or were
-- once: a key that is not enforced by declaration promises nothing. What to do with such rows, only a person knows.
SELECT f."table" AS object, format('%s %I', f."table", f.conname) AS identity,
       format('Rows of %s refer by %s to rows of %s that do not exist: they came in while the key was not enforced, or its data is damaged.', f."table", f.columns, f.referenced) AS issue,
       jsonb_build_object('constraint', f.conname, 'rows', f.rows, 'whole', 'SELECT * ' || q.orphans) AS evidence,
       CASE WHEN NOT f.readable OR NOT f.referenced_readable THEN format('no privilege to read %s and %s', f."table", f.referenced)
            WHEN p.is_of_others THEN format('%s compares keys by an operator that is neither of the server nor of an extension', f."table") END AS unknown,
       f."table" AS reads, f.conrelid::bigint AS reads_oid, f.referenced AS also_reads, f.confrelid::bigint AS also_reads_oid,
       format('SELECT format(''%%s of %%s sampled rows'', orphans, rows) FROM (SELECT count(*) AS rows, count(*) FILTER (WHERE %s AND NOT EXISTS (SELECT FROM %s r WHERE %s)) AS orphans FROM (SELECT %s FROM %s%s LIMIT 20000) s) c WHERE orphans > 0', q.set, f.referenced, q.same, f.columns, f."table",
              CASE WHEN f.rows > 5000 THEN format(' TABLESAMPLE SYSTEM (%s)', round(500000.0 / f.rows, 6)) ELSE '' END) AS probe
FROM foreign_keys f,
-- The server's own operators, by the referenced column's collation (ri_GenerateQual in ri_triggers.c): = would be another one for citext.
LATERAL (SELECT bool_or(w.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_operator'::regclass AND e.objid = w.oid AND e.deptype = 'e')) AS is_of_others,
                string_agg(format('s.%I IS NOT NULL', a.attname), ' AND ' ORDER BY o) AS set, string_agg(format('r.%I OPERATOR(%I.%s) s.%I%s', b.attname, n.nspname, w.oprname, a.attname, CASE WHEN a.attcollation <> b.attcollation THEN format(' COLLATE %I.%I', cn.nspname, y.collname) END), ' AND ' ORDER BY o) AS same
         FROM (SELECT conkey, confkey, conpfeqop FROM pg_constraint WHERE oid = f.oid) k, unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY u(k, l, operator, o)
         JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = u.k JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = u.l
         JOIN pg_operator w ON w.oid = u.operator JOIN pg_namespace n ON n.oid = w.oprnamespace
         LEFT JOIN pg_collation y ON y.oid = b.attcollation LEFT JOIN pg_namespace cn ON cn.oid = y.collnamespace) p,
LATERAL (SELECT p.set, p.same, format('FROM %s s WHERE %s AND NOT EXISTS (SELECT FROM %s r WHERE %s)', f."table", p.set, f.referenced, p.same) AS orphans) q
WHERE f.rows > 0
  -- One over periods (18) is no equality.
  AND coalesce(to_jsonb((SELECT k FROM pg_constraint k WHERE k.oid = f.oid)) ->> 'conperiod', 'false') = 'false'
ORDER BY f.rows DESC, 2
