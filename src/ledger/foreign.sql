-- Finds objects in the ledger's schema that another role owns, whose code would run as the role that writes a run's row: object,
-- reason, and cure.
WITH trusted AS (
    SELECT oid FROM pg_roles WHERE rolsuper OR rolname IN (current_user, session_user)),
ledger AS (
    SELECT oid, nspowner FROM pg_namespace WHERE nspname = 'pgtend'),
relation AS (
    SELECT c.oid, c.relkind, c.relowner, c.relrowsecurity, format('pgtend.%I', c.relname) AS name
    FROM pg_class c JOIN ledger l ON l.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')),
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
    FROM relation r JOIN pg_policy y ON y.polrelid = r.oid)
SELECT object, coalesce(by_name, 'it belongs to ' || pg_get_userbyid(owner)), replace(cure, '%I', quote_ident(current_user))
FROM found WHERE owner IS NULL OR owner NOT IN (SELECT oid FROM trusted)
ORDER BY rank, object LIMIT 1
