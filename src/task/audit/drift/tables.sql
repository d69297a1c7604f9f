), of_tables (rank, kind, name, parent, classid, oid, subid, address, granted, is_inner, facts, "create", sets) AS (
    SELECT 40, 'sequence', r.name, o.name, 'pg_class'::regclass, r.oid, 0, format('SEQUENCE %s', r.name), format('ON SEQUENCE %s', r.name), d.deptype IS NOT DISTINCT FROM 'i',
           jsonb_build_object('type', format_type(q.seqtypid, NULL), 'start', q.seqstart, 'increment', q.seqincrement, 'minimum', q.seqmin, 'maximum', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle,
                              'unlogged', r.relpersistence = 'u', 'owned by', CASE WHEN d.deptype = 'a' THEN format('%s.%I', o.name, a.attname) END),
           format('CREATE SEQUENCE %s AS %s INCREMENT %s MINVALUE %s MAXVALUE %s START %s CACHE %s%s;', r.name, format_type(q.seqtypid, NULL), q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' ELSE '' END),
           jsonb_build_object('type', format('ALTER SEQUENCE %s AS %s;', r.name, format_type(q.seqtypid, NULL)), 'start', format('ALTER SEQUENCE %s START %s;', r.name, q.seqstart), 'increment', format('ALTER SEQUENCE %s INCREMENT %s;', r.name, q.seqincrement),
                              'minimum', format('ALTER SEQUENCE %s MINVALUE %s;', r.name, q.seqmin), 'maximum', format('ALTER SEQUENCE %s MAXVALUE %s;', r.name, q.seqmax), 'cache', format('ALTER SEQUENCE %s CACHE %s;', r.name, q.seqcache),
                              'cycle', format('ALTER SEQUENCE %s %sCYCLE;', r.name, CASE WHEN q.seqcycle THEN '' ELSE 'NO ' END),
                              'owned by', CASE WHEN d.deptype IS NULL THEN format('ALTER SEQUENCE %s OWNED BY NONE;', r.name) WHEN d.deptype = 'a' THEN format('ALTER SEQUENCE %s OWNED BY %s.%I;', r.name, o.name, a.attname) END)
    FROM relations r JOIN pg_sequence q ON q.seqrelid = r.oid
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
    LEFT JOIN relations o ON o.oid = d.refobjid LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    UNION ALL
    SELECT CASE WHEN r.relispartition THEN 51 ELSE 50 END, CASE WHEN r.relispartition THEN 'partition' WHEN r.relkind = 'f' THEN 'foreign table' ELSE 'table' END, r.name, v.root, 'pg_class'::regclass, r.oid, 0, format('%s %s', r.word, r.name), format('ON TABLE %s', r.name), false,
           jsonb_build_object('order of columns', b.ordered, 'partition key', pg_get_partkeydef(r.oid), 'unlogged', r.relpersistence = 'u', 'access method', m.amname, 'tablespace', r.tablespace, 'options', r.options,
                              'TOAST options', (SELECT string_agg(o, ', ' ORDER BY o) FROM pg_class x, unnest(x.reloptions) o WHERE x.oid = r.reltoastrelid),
                              'row security', r.relrowsecurity, 'forced row security', r.relforcerowsecurity, 'replica identity', i.identity,
                              'parents', p.parents, 'bound', pg_get_expr(r.relpartbound, r.oid), 'of type', CASE WHEN r.reloftype <> 0 THEN format_type(r.reloftype, NULL) END,
                              'server', s.srvname, 'server options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(f.ftoptions) o)),
           CASE WHEN r.relkind = 'f' THEN NULL
                WHEN r.relispartition THEN format('CREATE TABLE %s PARTITION OF %s %s%s;', r.name, p.parents, pg_get_expr(r.relpartbound, r.oid), coalesce(' PARTITION BY ' || pg_get_partkeydef(r.oid), ''))
                ELSE format('CREATE %sTABLE %s (%s)%s%s%s;', CASE WHEN r.relpersistence = 'u' THEN 'UNLOGGED ' ELSE '' END, r.name, b.body, coalesce(' INHERITS (' || p.parents || ')', ''), coalesce(' PARTITION BY ' || pg_get_partkeydef(r.oid), ''), coalesce(' WITH (' || r.options || ')', '')) END
           || CASE WHEN r.relrowsecurity THEN format(E'\nALTER TABLE %s ENABLE ROW LEVEL SECURITY;', r.name) ELSE '' END || CASE WHEN r.relforcerowsecurity THEN format(E'\nALTER TABLE %s FORCE ROW LEVEL SECURITY;', r.name) ELSE '' END,
           jsonb_build_object('row security', format('ALTER TABLE %s %s ROW LEVEL SECURITY;', r.name, CASE WHEN r.relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END),
                              'forced row security', format('ALTER TABLE %s %sFORCE ROW LEVEL SECURITY;', r.name, CASE WHEN r.relforcerowsecurity THEN '' ELSE 'NO ' END),
                              'unlogged', CASE WHEN r.relkind = 'r' THEN format('ALTER TABLE %s SET %s;', r.name, CASE WHEN r.relpersistence = 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END) END,
                              'replica identity', format('ALTER TABLE %s REPLICA IDENTITY %s;', r.name, i.identity))
    FROM relations r LEFT JOIN bodies b ON b.oid = r.oid LEFT JOIN attached p ON p.oid = r.oid LEFT JOIN above v ON v.oid = r.oid LEFT JOIN pg_am m ON m.oid = r.relam
    LEFT JOIN pg_foreign_table f ON f.ftrelid = r.oid LEFT JOIN pg_foreign_server s ON s.oid = f.ftserver LEFT JOIN indexed x ON x.indrelid = r.oid AND x.indisreplident,
    LATERAL (SELECT CASE r.relreplident WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN 'FULL' WHEN 'i' THEN format('USING INDEX %I', x.relname) ELSE 'DEFAULT' END AS identity) i
    WHERE r.relkind IN ('r', 'p', 'f')
    UNION ALL
    SELECT 60, 'column', format('%s.%I', c."table", c.attname), c."table", 'pg_class'::regclass, c.oid, c.attnum::int, format('COLUMN %s.%I', c."table", c.attname), CASE WHEN c.relkind <> 'c' THEN format('(%I) ON TABLE %s', c.attname, c."table") END,
           c.attinhcount > 0 OR c.relkind IN ('v', 'm', 'c'),
           jsonb_build_object('type', CASE WHEN c.relkind NOT IN ('v', 'm', 'c') THEN c.type END, 'collation', CASE WHEN c.relkind NOT IN ('v', 'm', 'c') THEN c.collation END, 'default', CASE WHEN c.attgenerated = '' THEN c.value END,
                              'generated', CASE WHEN c.attgenerated <> '' THEN format('(%s)%s', c.value, CASE c.attgenerated WHEN 's' THEN ' STORED' ELSE ' VIRTUAL' END) END,
                              'identity', CASE c.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END, 'not null', CASE WHEN c.attnotnull THEN coalesce(c.not_null, 'NOT NULL') END,
                              'storage', CASE WHEN c.relkind NOT IN ('v', 'c') THEN c.storage END, 'compression', c.compression, 'statistics', c.target, 'options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(c.attoptions) o),
                              'server options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(c.attfdwoptions) o)),
           format('ALTER TABLE %s ADD COLUMN %I %s;', c."table", c.attname, d.definition),
           CASE WHEN c.relkind IN ('r', 'p') THEN
               jsonb_build_object('type', CASE WHEN c.attgenerated = '' THEN a.alter || format('TYPE %s;', c.type) END, 'default', CASE WHEN c.attgenerated = '' AND c.attidentity = '' THEN a.alter || coalesce('SET DEFAULT ' || c.value, 'DROP DEFAULT') || ';' END,
                                  'identity', CASE WHEN c.attidentity = '' THEN a.alter || 'DROP IDENTITY;' END, 'not null', CASE WHEN NOT c.attnotnull THEN a.alter || 'DROP NOT NULL;' WHEN coalesce(c.not_null, 'NOT NULL') = 'NOT NULL' THEN a.alter || 'SET NOT NULL;' END,
                                  'storage', a.alter || format('SET STORAGE %s;', coalesce(c.storage, c.default_storage)), 'compression', a.alter || format('SET COMPRESSION %s;', coalesce(c.compression, 'default')), 'statistics', a.alter || format('SET STATISTICS %s;', coalesce(c.target, -1)))
               ELSE '{}' END
    FROM columns c JOIN defined d ON d.oid = c.oid AND d.attnum = c.attnum, LATERAL (SELECT format('ALTER TABLE %s ALTER COLUMN %I ', c."table", c.attname) AS alter) a
    UNION ALL
    SELECT CASE WHEN k.contype IN ('p', 'u', 'x') THEN 70 WHEN k.contype = 'c' THEN 80 ELSE 100 END, 'constraint', format('%s %I', r.name, k.conname), r.name, 'pg_constraint'::regclass, k.oid, 0, format('CONSTRAINT %I ON %s', k.conname, r.name), NULL, k.coninhcount > 0,
           jsonb_build_object('definition', d.text, 'triggers', g.enabled, 'index options', i.options, 'index tablespace', i.tablespace, 'clustered', i.indisclustered),
           format('ALTER TABLE %s ADD CONSTRAINT %I %s;', r.name, k.conname, d.text),
           jsonb_build_object('definition', format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %2$I %3$s;', r.name, k.conname, d.text))
    FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid LEFT JOIN indexed i ON i.indexrelid = k.conindid AND k.contype IN ('p', 'u', 'x')
    LEFT JOIN (SELECT tgconstraint, string_agg(DISTINCT CASE tgenabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'A' THEN 'always' ELSE 'replica' END, ', ') AS enabled FROM pg_trigger WHERE tgisinternal GROUP BY tgconstraint) g ON g.tgconstraint = k.oid AND k.contype = 'f'
    CROSS JOIN LATERAL (SELECT pg_get_constraintdef(k.oid) AS text OFFSET 0) d
    WHERE k.contype IN ('p', 'u', 'x', 'c', 'f') AND k.conparentid = 0
    UNION ALL
    SELECT 90, 'index', i.index, i."table", 'pg_class'::regclass, i.indexrelid, 0, format('INDEX %s', i.index), NULL, false,
           jsonb_build_object('definition', d.text, 'tablespace', i.tablespace, 'clustered', i.indisclustered,
                              'statistics', (SELECT string_agg(format('column %s: %s', a.attnum, a.attstattarget), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0)),
           d.text || ';',
           jsonb_build_object('definition', format(E'BEGIN;\nDROP INDEX %s;\n%s;\nCOMMIT;', i.index, d.text))
    FROM indexed i, LATERAL (SELECT pg_get_indexdef(i.indexrelid) AS text OFFSET 0) d
    WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
    UNION ALL
    SELECT 120, CASE r.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, r.name, NULL, 'pg_class'::regclass, r.oid, 0, format('%s %s', r.word, r.name), format('ON TABLE %s', r.name), false,
           jsonb_build_object('definition', d.text, 'options', r.options, 'access method', m.amname, 'tablespace', r.tablespace),
           format(E'CREATE %s %s%s AS\n%s', CASE r.relkind WHEN 'v' THEN 'OR REPLACE VIEW' ELSE 'MATERIALIZED VIEW' END, r.name, coalesce(' WITH (' || r.options || ')', ''), d.text),
           CASE r.relkind WHEN 'v' THEN jsonb_build_object('definition', format(E'CREATE OR REPLACE VIEW %s%s AS\n%s', r.name, coalesce(' WITH (' || r.options || ')', ''), d.text), 'options', 'ALTER VIEW ' || r.name || ' SET (' || r.options || ');') ELSE '{}' END
    FROM relations r LEFT JOIN pg_am m ON m.oid = r.relam CROSS JOIN LATERAL (SELECT pg_get_viewdef(r.oid) AS text OFFSET 0) d WHERE r.relkind IN ('v', 'm')
    UNION ALL
    -- Clones of a partitioned table's triggers come and go with them; each can be disabled by itself.
    SELECT 130, 'trigger', format('%s %I', r.name, g.tgname), r.name, 'pg_trigger'::regclass, g.oid, 0, format('TRIGGER %I ON %s', g.tgname, r.name), NULL, g.tgparentid <> 0,
           jsonb_build_object('definition', pg_get_triggerdef(g.oid), 'enabled', w.enabled),
           pg_get_triggerdef(g.oid) || ';' || CASE g.tgenabled WHEN 'O' THEN '' ELSE format(E'\nALTER TABLE %s %s TRIGGER %I;', r.name, w.enabled, g.tgname) END,
           CASE WHEN g.tgparentid = 0 THEN jsonb_build_object('definition', format(E'BEGIN;\nDROP TRIGGER %I ON %s;\n%s;\nCOMMIT;', g.tgname, r.name, pg_get_triggerdef(g.oid))) ELSE '{}' END || jsonb_build_object('enabled', format('ALTER TABLE %s %s TRIGGER %I;', r.name, w.enabled, g.tgname))
    FROM pg_trigger g JOIN relations r ON r.oid = g.tgrelid, LATERAL (SELECT CASE g.tgenabled WHEN 'O' THEN 'ENABLE' WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END AS enabled) w
    WHERE NOT g.tgisinternal
    UNION ALL
    SELECT 131, 'rule', format('%s %I', r.name, u.rulename), r.name, 'pg_rewrite'::regclass, u.oid, 0, format('RULE %I ON %s', u.rulename, r.name), NULL, false,
           jsonb_build_object('definition', pg_get_ruledef(u.oid), 'enabled', w.enabled),
           pg_get_ruledef(u.oid), jsonb_build_object('definition', format(E'BEGIN;\nDROP RULE %I ON %s;\n%s\nCOMMIT;', u.rulename, r.name, pg_get_ruledef(u.oid)), 'enabled', format('ALTER TABLE %s %s RULE %I;', r.name, w.enabled, u.rulename))
    FROM pg_rewrite u JOIN relations r ON r.oid = u.ev_class, LATERAL (SELECT CASE u.ev_enabled WHEN 'O' THEN 'ENABLE' WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END AS enabled) w
    WHERE u.rulename <> '_RETURN'
    UNION ALL
    SELECT 140, 'policy', format('%s %I', r.name, p.polname), r.name, 'pg_policy'::regclass, p.oid, 0, format('POLICY %I ON %s', p.polname, r.name), NULL, false, v.facts, v.create,
           (SELECT jsonb_object_agg(f, format(E'BEGIN;\nDROP POLICY %I ON %s;\n%s\nCOMMIT;', p.polname, r.name, v.create)) FROM jsonb_object_keys(v.facts) f)
    FROM pg_policy p JOIN relations r ON r.oid = p.polrelid,
    LATERAL (SELECT CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END AS permissive, CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END AS command,
                    (SELECT string_agg(w, ', ' ORDER BY w) FROM (SELECT CASE WHEN o = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END AS w FROM unnest(p.polroles) o) w) AS roles,
                    pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS with_check) x,
    LATERAL (SELECT jsonb_build_object('kind', x.permissive, 'command', x.command, 'roles', x.roles, 'USING', x.using, 'WITH CHECK', x.with_check) AS facts,
                    format('CREATE POLICY %I ON %s %s;', p.polname, r.name, concat_ws(' ', 'AS ' || x.permissive, 'FOR ' || x.command, 'TO ' || x.roles, 'USING (' || x.using || ')', 'WITH CHECK (' || x.with_check || ')')) AS create) v
    UNION ALL
    SELECT 141, 'statistics', format('%I.%I', s.schema, x.stxname), r.name, 'pg_statistic_ext'::regclass, x.oid, 0, format('STATISTICS %I.%I', s.schema, x.stxname), NULL, false,
           jsonb_build_object('definition', pg_get_statisticsobjdef(x.oid), 'target', nullif(x.stxstattarget, -1)), pg_get_statisticsobjdef(x.oid) || ';',
           jsonb_build_object('definition', format(E'BEGIN;\nDROP STATISTICS %I.%I;\n%s;\nCOMMIT;', s.schema, x.stxname, pg_get_statisticsobjdef(x.oid)), 'target', format('ALTER STATISTICS %I.%I SET STATISTICS %s;', s.schema, x.stxname, coalesce(nullif(x.stxstattarget, -1), -1)))
    FROM pg_statistic_ext x JOIN schemas s ON s.oid = x.stxnamespace JOIN relations r ON r.oid = x.stxrelid
