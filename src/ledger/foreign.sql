-- Finds objects in the ledger's schema that another role owns, whose code would run as the role that writes a run's row: object,
-- reason, and cure.
WITH trusted AS (
    SELECT oid FROM pg_roles WHERE rolsuper OR rolname IN (current_user, session_user)),
ledger AS (
    SELECT oid, nspowner FROM pg_namespace WHERE nspname = 'pgtend'),
relation AS (
    SELECT c.oid, c.relkind, c.relowner, c.relrowsecurity, format('pgtend.%I', c.relname) AS name
    FROM pg_class c JOIN ledger l ON l.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')),
-- Whoever made the tables beforehand may have left code in them that outlives a change of their owner.
expression AS (
    SELECT k.conrelid AS relation, format('CHECK %I', k.conname) AS name, k.conbin::text AS tree,
           format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname) AS cure
    FROM pg_constraint k WHERE k.contype = 'c'
    UNION ALL
    SELECT f.adrelid, format('default of column %I', a.attname), f.adbin::text,
           format('ALTER TABLE %s ALTER COLUMN %I DROP %s', f.adrelid::regclass, a.attname, CASE WHEN a.attgenerated = '' THEN 'DEFAULT' ELSE 'EXPRESSION' END)
    FROM pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
    UNION ALL
    SELECT i.indrelid, format('index %I', c.relname), concat(i.indexprs::text, i.indpred::text), format('DROP INDEX %s', c.oid::regclass)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
    UNION ALL
    SELECT s.stxrelid, format('statistics %I', s.stxname), s.stxexprs::text, format('DROP STATISTICS %I.%I', n.nspname, s.stxname)
    FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxexprs IS NOT NULL),
found AS (
    SELECT 1 AS rank, 'schema pgtend' AS object, nspowner AS owner, NULL AS by_name, 'ALTER SCHEMA pgtend OWNER TO %I' AS cure FROM ledger
    UNION ALL
    SELECT 2, CASE r.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'f' THEN 'foreign table '
                             ELSE 'table ' END || r.name,
           r.relowner, NULL, 'ALTER TABLE ' || r.name || ' OWNER TO %I'
    FROM relation r
    UNION ALL
    SELECT 3, 'function ' || p.oid::regprocedure::text, p.proowner, NULL, 'ALTER ROUTINE ' || p.oid::regprocedure::text || ' OWNER TO %I'
    FROM pg_proc p JOIN ledger l ON l.oid = p.pronamespace
    UNION ALL
    SELECT 4, format('trigger %I on ', t.tgname) || r.name, NULL, 'it runs ' || t.tgfoid::regprocedure::text || ' of ' || pg_get_userbyid(p.proowner),
           format('DROP TRIGGER %I ON ', t.tgname) || r.name
    FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT 5, format('rule %I on ', w.rulename) || r.name, NULL, 'of ' || pg_get_userbyid(r.relowner), format('DROP RULE %I ON ', w.rulename) || r.name
    FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE r.relkind IN ('r', 'p', 'f')
    UNION ALL
    SELECT 6, format('policy %I on ', y.polname) || r.name, NULL, 'of ' || pg_get_userbyid(r.relowner), format('DROP POLICY %I ON ', y.polname) || r.name
    FROM relation r JOIN pg_policy y ON y.polrelid = r.oid
    UNION ALL
    SELECT 7, format('foreign key %I of %s', k.conname, k.conrelid::regclass), NULL, 'rows go through it from one table to another',
           format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname)
    FROM pg_constraint k WHERE k.contype = 'f' AND EXISTS (SELECT FROM relation r WHERE r.oid IN (k.conrelid, k.confrelid))
    UNION ALL
    SELECT 8, format('table %s', i.inhrelid::regclass), NULL, format('it inherits from %s', i.inhparent::regclass),
           format('ALTER TABLE %s NO INHERIT %s', i.inhrelid::regclass, i.inhparent::regclass)
    FROM pg_inherits i WHERE EXISTS (SELECT FROM relation r WHERE r.oid IN (i.inhrelid, i.inhparent))
    UNION ALL
    SELECT 9, e.name || ' of ' || r.name, NULL, 'it calls ' || p.oid::regprocedure::text || ' of ' || pg_get_userbyid(p.proowner), e.cure
    FROM expression e JOIN relation r ON r.oid = e.relation, LATERAL (
        SELECT m.found[1]::oid AS oid FROM regexp_matches(e.tree, ':(?:funcid|opfuncid|winfnoid|aggfnoid) ([0-9]+)', 'g') m(found)
        UNION
        SELECT o.oprcode FROM regexp_matches(e.tree, ':opno ([0-9]+)', 'g') m(found) JOIN pg_operator o ON o.oid = m.found[1]::oid) called
    JOIN pg_proc p ON p.oid = called.oid JOIN pg_namespace n ON n.oid = p.pronamespace
    -- PostgreSQL's own functions count where they take SQL, reach files or change the server, as in src/task/foreign_code.sql.
    WHERE CASE WHEN n.nspname = 'pg_catalog' THEN p.provolatile <> 'i' AND p.proname ~ '^(pg_|lo_|loread|lowrite|ts_stat|ts_rewrite|set_config|setval)|_to_xml'
               ELSE p.proowner NOT IN (SELECT oid FROM trusted) END
    UNION ALL
    SELECT 10, format('column %I of ', a.attname) || r.name, NULL, 'its type ' || format_type(a.atttypid, NULL) || ' belongs to ' || pg_get_userbyid(t.typowner),
           'ALTER SCHEMA pgtend RENAME TO pgtend_of_others'
    FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
    WHERE t.typowner NOT IN (SELECT oid FROM trusted) AND t.typowner <> r.relowner
    UNION ALL
    SELECT 11, format('index %I of ', c.relname) || r.name, NULL, format('its operator class %I belongs to ', o.opcname) || pg_get_userbyid(o.opcowner),
           format('DROP INDEX pgtend.%I', c.relname)
    FROM relation r JOIN pg_index i ON i.indrelid = r.oid JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_opclass o ON o.oid = ANY (i.indclass::oid[])
    WHERE o.opcowner NOT IN (SELECT oid FROM trusted))
SELECT object, coalesce(by_name, 'it belongs to ' || pg_get_userbyid(owner)), replace(cure, '%I', quote_ident(current_user))
FROM found WHERE owner IS NULL OR owner NOT IN (SELECT oid FROM trusted)
ORDER BY rank, object LIMIT 1
