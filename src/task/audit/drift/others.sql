), of_others (rank, kind, name, parent, classid, oid, subid, address, granted, is_inner, facts, "create", sets) AS (
    -- pg_get_functiondef cannot show an aggregate.
    SELECT 110, 'function', n.name, NULL, 'pg_proc'::regclass, p.oid, 0, format('%s %s', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, n.name), format('ON ROUTINE %s', n.name), false,
           jsonb_build_object('definition', d.text), d.text || ';', jsonb_build_object('definition', d.text || ';')
    FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace, LATERAL (SELECT format('%I.%I(%s)', s.schema, p.proname, pg_get_function_identity_arguments(p.oid)) AS name) n,
    LATERAL (SELECT rtrim(pg_get_functiondef(p.oid), E'\n') AS text OFFSET 0) d
    WHERE p.prokind <> 'a' AND NOT EXISTS (SELECT FROM members m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
    UNION ALL
    SELECT 115, 'aggregate', n.name, NULL, 'pg_proc'::regclass, p.oid, 0, format('AGGREGATE %s', n.name), format('ON ROUTINE %s', n.name), false,
           jsonb_build_object('definition', to_jsonb(a) - ARRAY['aggfnoid', 'aggtranstype', 'aggmtranstype', 'aggsortop'] || jsonb_build_object('returns', format_type(p.prorettype, NULL), 'parallel', p.proparallel, 'aggtranstype', format_type(a.aggtranstype, NULL), 'aggmtranstype', format_type(a.aggmtranstype, NULL), 'aggsortop', a.aggsortop::regoperator::text)), NULL, '{}'
    FROM pg_proc p JOIN pg_aggregate a ON a.aggfnoid = p.oid JOIN schemas s ON s.oid = p.pronamespace, LATERAL (SELECT format('%I.%I(%s)', s.schema, p.proname, pg_get_function_identity_arguments(p.oid)) AS name) n
    WHERE NOT EXISTS (SELECT FROM members m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
    UNION ALL
    SELECT 116, 'operator', n.name, NULL, 'pg_operator'::regclass, o.oid, 0, format('OPERATOR %s', n.name), NULL, false,
           jsonb_build_object('definition', jsonb_build_object('function', o.oprcode::text, 'returns', format_type(o.oprresult, NULL), 'commutator', o.oprcom::regoperator::text, 'negator', o.oprnegate::regoperator::text, 'restrict', o.oprrest::text, 'join', o.oprjoin::text, 'hashes', o.oprcanhash, 'merges', o.oprcanmerge)), NULL, '{}'
    FROM pg_operator o JOIN schemas s ON s.oid = o.oprnamespace, LATERAL (SELECT format('%I.%s (%s, %s)', s.schema, o.oprname, CASE WHEN o.oprleft = 0 THEN 'NONE' ELSE format_type(o.oprleft, NULL) END, format_type(o.oprright, NULL)) AS name) n
    -- One that is only named, as the commutator of another, has no function.
    WHERE o.oprcode <> 0 AND NOT EXISTS (SELECT FROM members m WHERE m.classid = 'pg_operator'::regclass AND m.objid = o.oid)
    UNION ALL
    SELECT 117, 'operator family', n.name, NULL, 'pg_opfamily'::regclass, f.oid, 0, format('OPERATOR FAMILY %s', n.name), NULL, false,
           jsonb_build_object('operators', (SELECT string_agg(format('%s %s%s', p.amopstrategy, p.amopopr::regoperator, CASE WHEN p.amopsortfamily <> 0 THEN ' FOR ORDER BY' ELSE '' END), ', ' ORDER BY p.amopstrategy, p.amopopr::regoperator::text) FROM pg_amop p WHERE p.amopfamily = f.oid),
                              'functions', (SELECT string_agg(format('%s %s (%s, %s)', p.amprocnum, p.amproc::regprocedure, format_type(p.amproclefttype, NULL), format_type(p.amprocrighttype, NULL)), ', ' ORDER BY p.amprocnum, p.amproc::regprocedure::text) FROM pg_amproc p WHERE p.amprocfamily = f.oid)), NULL, '{}'
    FROM pg_opfamily f JOIN schemas s ON s.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod, LATERAL (SELECT format('%I.%I USING %I', s.schema, f.opfname, m.amname) AS name) n
    WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_opfamily'::regclass AND x.objid = f.oid)
    UNION ALL
    SELECT 118, 'operator class', n.name, NULL, 'pg_opclass'::regclass, c.oid, 0, format('OPERATOR CLASS %s', n.name), NULL, false,
           jsonb_build_object('definition', jsonb_build_object('type', format_type(c.opcintype, NULL), 'default', c.opcdefault, 'stored as', format_type(nullif(c.opckeytype, 0), NULL), 'family', (SELECT format('%I.%I', x.nspname, f.opfname) FROM pg_opfamily f JOIN pg_namespace x ON x.oid = f.opfnamespace WHERE f.oid = c.opcfamily))), NULL, '{}'
    FROM pg_opclass c JOIN schemas s ON s.oid = c.opcnamespace JOIN pg_am m ON m.oid = c.opcmethod, LATERAL (SELECT format('%I.%I USING %I', s.schema, c.opcname, m.amname) AS name) n
    WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_opclass'::regclass AND x.objid = c.oid)
    UNION ALL
    SELECT 119, 'cast', n.name, NULL, 'pg_cast'::regclass, c.oid, 0, format('CAST %s', n.name), NULL, false,
           jsonb_build_object('definition', jsonb_build_object('function', CASE WHEN c.castfunc <> 0 THEN c.castfunc::regprocedure::text END, 'context', CASE c.castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'assignment' ELSE 'explicit' END, 'method', c.castmethod)), NULL, '{}'
    FROM pg_cast c, LATERAL (SELECT format('(%s AS %s)', format_type(c.castsource, NULL), format_type(c.casttarget, NULL)) AS name) n
    WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_cast'::regclass AND x.objid = c.oid)
    UNION ALL
    SELECT 26, 'conversion', format('%I.%I', s.schema, c.conname), NULL, 'pg_conversion'::regclass, c.oid, 0, format('CONVERSION %I.%I', s.schema, c.conname), NULL, false,
           jsonb_build_object('definition', jsonb_build_object('from', pg_encoding_to_char(c.conforencoding), 'to', pg_encoding_to_char(c.contoencoding), 'function', c.conproc::text, 'default', c.condefault)), NULL, '{}'
    FROM pg_conversion c JOIN schemas s ON s.oid = c.connamespace WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_conversion'::regclass AND x.objid = c.oid)
    UNION ALL
    SELECT 21, 'language', format('%I', l.lanname), NULL, 'pg_language'::regclass, l.oid, 0, format('LANGUAGE %I', l.lanname), format('ON LANGUAGE %I', l.lanname), false,
           jsonb_build_object('definition', jsonb_build_object('trusted', l.lanpltrusted, 'handler', l.lanplcallfoid::regproc::text, 'inline', l.laninline::regproc::text, 'validator', l.lanvalidator::regproc::text)), NULL, '{}'
    FROM pg_language l WHERE l.oid >= 16384 AND NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_language'::regclass AND x.objid = l.oid)
    UNION ALL
    SELECT 22, 'access method', format('%I', a.amname), NULL, 'pg_am'::regclass, a.oid, 0, format('ACCESS METHOD %I', a.amname), NULL, false, jsonb_build_object('definition', jsonb_build_object('handler', a.amhandler::text, 'sort', a.amtype)), NULL, '{}'
    FROM pg_am a WHERE a.oid >= 16384 AND NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_am'::regclass AND x.objid = a.oid)
    UNION ALL
    SELECT 23, 'transform', n.name, NULL, 'pg_transform'::regclass, t.oid, 0, format('TRANSFORM %s', n.name), NULL, false, jsonb_build_object('definition', jsonb_build_object('from', t.trffromsql::text, 'to', t.trftosql::text)), NULL, '{}'
    FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang, LATERAL (SELECT format('FOR %s LANGUAGE %I', format_type(t.trftype, NULL), l.lanname) AS name) n
    WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_transform'::regclass AND x.objid = t.oid)
    UNION ALL
    SELECT 31, 'text search parser', format('%I.%I', s.schema, p.prsname), NULL, 'pg_ts_parser'::regclass, p.oid, 0, format('TEXT SEARCH PARSER %I.%I', s.schema, p.prsname), NULL, false,
           jsonb_build_object('definition', jsonb_build_object('start', p.prsstart::text, 'token', p.prstoken::text, 'end', p.prsend::text, 'headline', p.prsheadline::text, 'types', p.prslextype::text)), NULL, '{}'
    FROM pg_ts_parser p JOIN schemas s ON s.oid = p.prsnamespace WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_ts_parser'::regclass AND x.objid = p.oid)
    UNION ALL
    SELECT 32, 'text search template', format('%I.%I', s.schema, t.tmplname), NULL, 'pg_ts_template'::regclass, t.oid, 0, format('TEXT SEARCH TEMPLATE %I.%I', s.schema, t.tmplname), NULL, false,
           jsonb_build_object('definition', jsonb_build_object('init', t.tmplinit::text, 'lexize', t.tmpllexize::text)), NULL, '{}'
    FROM pg_ts_template t JOIN schemas s ON s.oid = t.tmplnamespace WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_ts_template'::regclass AND x.objid = t.oid)
    UNION ALL
    SELECT 33, 'text search dictionary', format('%I.%I', s.schema, d.dictname), NULL, 'pg_ts_dict'::regclass, d.oid, 0, format('TEXT SEARCH DICTIONARY %I.%I', s.schema, d.dictname), NULL, false,
           jsonb_build_object('template', format('%I.%I', n.nspname, t.tmplname), 'options', d.dictinitoption),
           format('CREATE TEXT SEARCH DICTIONARY %I.%I (TEMPLATE = %I.%I%s);', s.schema, d.dictname, n.nspname, t.tmplname, coalesce(', ' || d.dictinitoption, '')), CASE WHEN d.dictinitoption IS NOT NULL THEN jsonb_build_object('options', format('ALTER TEXT SEARCH DICTIONARY %I.%I (%s);', s.schema, d.dictname, d.dictinitoption)) ELSE '{}' END
    FROM pg_ts_dict d JOIN schemas s ON s.oid = d.dictnamespace JOIN pg_ts_template t ON t.oid = d.dicttemplate JOIN pg_namespace n ON n.oid = t.tmplnamespace
    WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_ts_dict'::regclass AND x.objid = d.oid)
    UNION ALL
    SELECT 34, 'text search configuration', format('%I.%I', s.schema, c.cfgname), NULL, 'pg_ts_config'::regclass, c.oid, 0, format('TEXT SEARCH CONFIGURATION %I.%I', s.schema, c.cfgname), NULL, false,
           jsonb_build_object('parser', format('%I.%I', n.nspname, p.prsname),
                              'mapping', (SELECT string_agg(format('%s: %s', t.alias, m.dictionaries), '; ' ORDER BY t.alias)
                                          FROM (SELECT maptokentype, string_agg(mapdict::regdictionary::text, ', ' ORDER BY mapseqno) AS dictionaries FROM pg_ts_config_map WHERE mapcfg = c.oid GROUP BY maptokentype) m JOIN ts_token_type(c.cfgparser) t ON t.tokid = m.maptokentype)), NULL, '{}'
    FROM pg_ts_config c JOIN schemas s ON s.oid = c.cfgnamespace JOIN pg_ts_parser p ON p.oid = c.cfgparser JOIN pg_namespace n ON n.oid = p.prsnamespace
    WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_ts_config'::regclass AND x.objid = c.oid)
    UNION ALL
    SELECT 35, 'foreign data wrapper', format('%I', f.fdwname), NULL, 'pg_foreign_data_wrapper'::regclass, f.oid, 0, format('FOREIGN DATA WRAPPER %I', f.fdwname), format('ON FOREIGN DATA WRAPPER %I', f.fdwname), false,
           jsonb_build_object('handler', f.fdwhandler::regproc::text, 'validator', f.fdwvalidator::regproc::text, 'options', (SELECT string_agg(CASE WHEN o ~* '^[^=]*(pass|secret|key|token)' THEN split_part(o, '=', 1) ELSE o END, ', ' ORDER BY o) FROM unnest(f.fdwoptions) o)), NULL, '{}'
    FROM pg_foreign_data_wrapper f WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_foreign_data_wrapper'::regclass AND x.objid = f.oid)
    UNION ALL
    SELECT 36, 'server', format('%I', f.srvname), NULL, 'pg_foreign_server'::regclass, f.oid, 0, format('SERVER %I', f.srvname), format('ON FOREIGN SERVER %I', f.srvname), false,
           jsonb_build_object('wrapper', w.fdwname, 'type', f.srvtype, 'version', f.srvversion, 'options', (SELECT string_agg(CASE WHEN o ~* '^[^=]*(pass|secret|key|token)' THEN split_part(o, '=', 1) ELSE o END, ', ' ORDER BY o) FROM unnest(f.srvoptions) o)), NULL, '{}'
    FROM pg_foreign_server f JOIN pg_foreign_data_wrapper w ON w.oid = f.srvfdw WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_foreign_server'::regclass AND x.objid = f.oid)
    UNION ALL
    -- Not its options: their values are passwords, and only some roles see them.
    SELECT 37, 'user mapping', format('of %s on %I', CASE u.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(u.usename) END, u.srvname), NULL, 'pg_user_mapping'::regclass, u.umid, 0, NULL, NULL, false, '{}', NULL, '{}'
    FROM pg_user_mappings u
    UNION ALL
    SELECT 150, 'publication', format('%I', p.pubname), NULL, 'pg_publication'::regclass, p.oid, 0, format('PUBLICATION %I', p.pubname), NULL, false,
           jsonb_build_object('all tables', p.puballtables, 'operations', o.operations, 'via root', p.pubviaroot, 'generated columns', to_jsonb(p) ->> 'pubgencols', 'tables', t.tables, 'schemas', n.schemas),
           CASE WHEN n.schemas IS NULL THEN format('CREATE PUBLICATION %I%s WITH (publish = %L, publish_via_partition_root = %s);', p.pubname, CASE WHEN p.puballtables THEN ' FOR ALL TABLES' ELSE coalesce(' FOR TABLE ' || t.tables, '') END, o.operations, p.pubviaroot::text) END,
           jsonb_build_object('operations', format('ALTER PUBLICATION %I SET (publish = %L);', p.pubname, o.operations), 'via root', format('ALTER PUBLICATION %I SET (publish_via_partition_root = %s);', p.pubname, p.pubviaroot::text),
                              'tables', CASE WHEN NOT p.puballtables AND n.schemas IS NULL THEN 'ALTER PUBLICATION ' || quote_ident(p.pubname) || ' SET TABLE ' || t.tables || ';' END)
    FROM pg_publication p
    LEFT JOIN LATERAL (
        SELECT string_agg(r.name || coalesce((SELECT ' (' || string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) || ')' FROM pg_attribute a WHERE a.attrelid = x.prrelid AND to_jsonb(x) ->> 'prattrs' IS NOT NULL AND to_jsonb(a.attnum) <@ (to_jsonb(x) -> 'prattrs')), '')
                          || coalesce(' WHERE ' || (to_jsonb(v) ->> 'rowfilter'), ''), ', ' ORDER BY r.name) AS tables
        FROM pg_publication_rel x JOIN relations r ON r.oid = x.prrelid LEFT JOIN pg_publication_tables v ON v.pubname = p.pubname AND v.schemaname = r.schema AND v.tablename = r.relname WHERE x.prpubid = p.oid
    ) t ON true,
    -- pg_publication_namespace (6237) exists since 15.
    LATERAL (SELECT string_agg(quote_ident(s.nspname), ', ' ORDER BY s.nspname) AS schemas FROM pg_depend a JOIN pg_depend b ON b.classid = a.classid AND b.objid = a.objid AND b.refclassid = 'pg_namespace'::regclass JOIN pg_namespace s ON s.oid = b.refobjid WHERE a.classid = 6237 AND a.refclassid = 'pg_publication'::regclass AND a.refobjid = p.oid) n,
    LATERAL (SELECT concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END) AS operations) o
    WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_publication'::regclass AND x.objid = p.oid)
    UNION ALL
    -- Not its connection string: it holds a password, and only superusers see it. What a version lacks has its default: a name that pg_subscription does not have is that of `lacks`.
    SELECT 155, 'subscription', format('%I', s.subname), NULL, 'pg_subscription'::regclass, s.oid, 0, format('SUBSCRIPTION %I', s.subname), NULL, false,
           jsonb_build_object('enabled', s.subenabled, 'publications', l.publications, 'slot', s.subslotname) || o.options, NULL,
           jsonb_build_object('enabled', format('ALTER SUBSCRIPTION %I %s;', s.subname, CASE WHEN s.subenabled THEN 'ENABLE' ELSE 'DISABLE' END), 'slot', format('ALTER SUBSCRIPTION %I SET (slot_name = %s);', s.subname, coalesce(quote_literal(s.subslotname), 'NONE')),
                              'publications', format(E'ALTER SUBSCRIPTION %I SET PUBLICATION %s WITH (refresh = false);\n-- once it is enabled: ALTER SUBSCRIPTION %1$I REFRESH PUBLICATION;', s.subname, l.publications))
           || (SELECT jsonb_object_agg(option, format('ALTER SUBSCRIPTION %I SET (%s = %s);', s.subname, replace(option, ' ', '_'), value)) FROM jsonb_each_text(o.options) e(option, value) WHERE option NOT IN ('two phase', 'failover'))
    FROM pg_subscription s CROSS JOIN (SELECT NULL::text AS subtwophasestate, NULL::bool AS subdisableonerr, NULL::bool AS subpasswordrequired, NULL::bool AS subrunasowner, NULL::text AS suborigin, NULL::bool AS subfailover) lacks,
    LATERAL (SELECT string_agg(quote_ident(p), ', ' ORDER BY p) AS publications FROM unnest(s.subpublications) p) l,
    LATERAL (SELECT jsonb_build_object('binary', subbinary, 'streaming', CASE substream::text WHEN 'true' THEN 'on' WHEN 't' THEN 'on' WHEN 'p' THEN 'parallel' ELSE 'off' END, 'synchronous commit', subsynccommit, 'two phase', coalesce(subtwophasestate::text, 'd') <> 'd',
                                       'disable on error', coalesce(subdisableonerr, false), 'password required', coalesce(subpasswordrequired, true), 'run as owner', coalesce(subrunasowner, false), 'origin', coalesce(suborigin, 'any'), 'failover', coalesce(subfailover, false)) AS options
             FROM pg_subscription x WHERE x.oid = s.oid) o
    WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT 160, 'event trigger', format('%I', e.evtname), NULL, 'pg_event_trigger'::regclass, e.oid, 0, format('EVENT TRIGGER %I', e.evtname), NULL, false,
           jsonb_build_object('event', e.evtevent, 'tags', array_to_string(e.evttags, ', '), 'function', e.evtfoid::regprocedure::text, 'enabled', w.enabled),
           format('CREATE EVENT TRIGGER %I ON %s%s EXECUTE FUNCTION %s();', e.evtname, e.evtevent, (SELECT ' WHEN TAG IN (' || string_agg(quote_literal(t), ', ') || ')' FROM unnest(e.evttags) t), e.evtfoid::regproc), jsonb_build_object('enabled', format('ALTER EVENT TRIGGER %I %s;', e.evtname, w.enabled))
    FROM pg_event_trigger e, LATERAL (SELECT CASE e.evtenabled WHEN 'O' THEN 'ENABLE' WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END AS enabled) w
    WHERE NOT EXISTS (SELECT FROM members x WHERE x.classid = 'pg_event_trigger'::regclass AND x.objid = e.oid)
    UNION ALL
    SELECT 15, 'default privileges', format('of %I%s on %s', pg_get_userbyid(d.defaclrole), ' in schema ' || quote_ident(n.nspname), k.what), NULL, 'pg_default_acl'::regclass, d.oid, 0, NULL, NULL, false, jsonb_build_object('grants', x.entries), x.create, '{}'
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace,
    LATERAL (SELECT CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'routines' WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END AS what) k,
    LATERAL (SELECT jsonb_agg(format('%s TO %s%s', privilege, grantee, option) ORDER BY privilege, grantee) AS entries,
                    string_agg(format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT %s ON %s TO %s%s;', pg_get_userbyid(d.defaclrole), n.nspname, privilege, upper(k.what), grantee, option), E'\n' ORDER BY privilege, grantee) FILTER (WHERE n.oid IS NOT NULL) AS create
             FROM (SELECT privilege_type AS privilege, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS option FROM aclexplode(d.defaclacl)) a) x
