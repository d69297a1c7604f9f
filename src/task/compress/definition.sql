-- One hash of what a relation is, and of what there is on it. {oid}: its oid. None of the lines changes by reading, writing, VACUUM
-- or ANALYZE.
SELECT encode(sha256(convert_to(string_agg(line, chr(10) ORDER BY line COLLATE "C"), getdatabaseencoding())), 'hex')
FROM (
    SELECT format('relation %s %s %I %s %s %s %s %s %s %s', c.oid, c.relnamespace::regnamespace, c.relname, c.relkind, c.relpersistence,
                  c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.reloptions) AS line
    FROM pg_class c WHERE c.oid = {oid}
    UNION ALL SELECT format('column %s %I %s %s %s %s %s %s %s', a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation,
                            a.attnotnull, a.attidentity, a.attgenerated, a.attacl, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT format('constraint %s %s %I %s %s', k.oid, k.conrelid, k.conname, pg_get_constraintdef(k.oid), k.convalidated)
    FROM pg_constraint k WHERE {oid} IN (k.conrelid, k.confrelid)
    UNION ALL SELECT format('index %s %s %s', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indimmediate)
    FROM pg_index i WHERE i.indrelid = {oid}
    UNION ALL SELECT format('trigger %s %s %s %s', t.oid, pg_get_triggerdef(t.oid), t.tgenabled, p.prosrc)
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = {oid} AND NOT t.tgisinternal
    UNION ALL SELECT format('policy %s', p) FROM pg_policy p WHERE p.polrelid = {oid}
    UNION ALL SELECT format('rule %s %s', r.oid, pg_get_ruledef(r.oid)) FROM pg_rewrite r WHERE r.ev_class = {oid}
    UNION ALL SELECT format('published %I', p.pubname)
    FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relname = p.tablename AND c.relnamespace = n.oid
    WHERE c.oid = {oid}
    UNION ALL SELECT format('subscribed %s', s.srsubid) FROM pg_subscription_rel s WHERE s.srrelid = {oid}
    UNION ALL SELECT format('inherited %s %s', i.inhrelid, i.inhparent) FROM pg_inherits i WHERE {oid} IN (i.inhrelid, i.inhparent)
    UNION ALL SELECT format('comment %s %s', d.objsubid, d.description)
    FROM pg_description d WHERE d.classoid = 'pg_class'::regclass AND d.objoid = {oid}
    UNION ALL SELECT format('dependant %s %s %s %s %s', d.classid, d.objid, d.objsubid, d.refobjsubid, d.deptype)
    FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid}
        OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
            SELECT reltype FROM pg_class WHERE oid = {oid} UNION SELECT typarray FROM pg_type WHERE typrelid = {oid})
    UNION ALL SELECT DISTINCT format('view %s %s %s %s %s', v.oid, v.relowner, v.relacl, v.reloptions, pg_get_viewdef(v.oid))
    FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid} AND v.oid <> {oid} AND v.relkind IN ('v', 'm')
) lines
WHERE EXISTS (SELECT FROM pg_class WHERE oid = {oid})
