-- What depends on a table, or on the column with its values, by more than its name. $1: the table's oid, $2: the column's attribute number,
-- $3: the column's name, $4: the table's name as applications write it.
-- severity: "hard" keeps the view from taking the table's place, "soft" may, "note" is for information.
WITH dependant AS (
    SELECT d.classid, d.objid, d.objsubid, d.deptype FROM pg_depend d
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND d.refobjsubid = $2::int2
), trigger AS (
    SELECT t.*, p.proname, l.lanname, p.prosrc, replace(encode(t.tgargs, 'escape'), '\000', ' ') AS arguments,
           regexp_replace(p.prosrc, '--[^\n]*|return\s+(new|old)\s*;', '', 'gi') AS source
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
    WHERE t.tgrelid = $1::bigint::oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgname NOT LIKE 'zz\_pgtend%'
), word AS (
    SELECT pattern[1] AS column_name, pattern[2] AS table_name FROM (
        -- A name may begin or end with what is no letter: then no word begins or ends there.
        SELECT array_agg(CASE WHEN name ~ '^\w' THEN '\m' ELSE '' END || regexp_replace(name, '([^[:alnum:]_])', '\\\1', 'g')
                         || CASE WHEN name ~ '\w$' THEN '\M' ELSE '' END ORDER BY n) AS pattern
        FROM unnest(ARRAY[$3, $4]) WITH ORDINALITY u (name, n)) p
), policy AS (
    SELECT p.*, pg_get_expr(p.polqual, p.polrelid) AS shown, pg_get_expr(p.polwithcheck, p.polrelid) AS written
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid AND c.relrowsecurity WHERE p.polrelid = $1::bigint::oid
)
SELECT 'hard' AS severity, format('index %s is built over the column: it would have nothing to index', i.relname) AS what
FROM dependant JOIN pg_class i ON i.oid = dependant.objid AND dependant.classid = 'pg_class'::regclass AND i.relkind IN ('i', 'I')
UNION SELECT 'hard', format('%s holds the column: it would see no text', pg_describe_object('pg_constraint'::regclass, k.oid, 0))
FROM dependant JOIN pg_constraint k ON k.oid = dependant.objid AND dependant.classid = 'pg_constraint'::regclass AND k.contype NOT IN ('c', 'n')
UNION SELECT 'hard', format('generated column %I is computed from the column', a.attname)
FROM dependant JOIN pg_attrdef d ON d.oid = dependant.objid AND dependant.classid = 'pg_attrdef'::regclass
JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.adnum <> $2::int2
UNION SELECT 'hard', format('generated column %I is computed from the column', a.attname)
FROM dependant JOIN pg_attribute a ON a.attrelid = dependant.objid AND a.attnum = dependant.objsubid
WHERE dependant.classid = 'pg_class'::regclass AND dependant.objsubid <> 0 AND dependant.objid = $1::bigint::oid AND a.attgenerated <> ''
UNION SELECT 'hard', format('%s asks for the column', pg_describe_object(dependant.classid, dependant.objid, dependant.objsubid))
FROM dependant WHERE dependant.classid IN ('pg_policy'::regclass, 'pg_publication_rel'::regclass, 'pg_proc'::regclass)
UNION SELECT 'hard', format('trigger %I looks at the column (WHEN, or UPDATE OF)', t.tgname)
FROM dependant JOIN trigger t ON t.oid = dependant.objid AND dependant.classid = 'pg_trigger'::regclass
UNION SELECT 'hard', format('trigger %I is for UPDATE OF some columns: through the view, all are updated', t.tgname)
FROM trigger t WHERE cardinality(t.tgattr::int2[]) > 0
UNION SELECT 'soft', format('trigger %I uses the column (its function %I names it): it would see no text in compressed rows', t.tgname, t.proname)
FROM trigger t, word WHERE t.source ~* word.column_name OR t.arguments ~* word.column_name
UNION SELECT 'soft', format('trigger %I uses whole rows (its function %I): they would have no text in compressed rows', t.tgname, t.proname)
FROM trigger t WHERE t.source ~* '\m(new|old)\M(\s*\.\s*\*|(?!\s*\.))' AND t.lanname = 'plpgsql'
UNION SELECT 'soft', format('trigger %I is written in %s (its function %I): what it does with the text of a row cannot be seen', t.tgname, t.lanname, t.proname)
FROM trigger t WHERE t.lanname NOT IN ('plpgsql', 'internal')
UNION SELECT 'soft', format('trigger %I reads the changed rows as a table: compressed ones would have no text', t.tgname)
FROM trigger t WHERE t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL
UNION SELECT 'note', format(CASE t.tgenabled WHEN 'A' THEN 'trigger %I fires for each row that is compressed, as it is ENABLE ALWAYS'
    ELSE 'trigger %I fires for each row that is compressed: GRANT SET ON PARAMETER session_replication_role TO the role (PostgreSQL 15), and it does not' END, t.tgname)
FROM trigger t WHERE t.tgtype & 16 = 16 AND t.tgtype & 1 = 1
UNION SELECT 'note', format('trigger %I is for each statement: a statement through the view is one for each row', t.tgname)
FROM trigger t WHERE t.tgtype & 1 = 0
UNION SELECT DISTINCT 'hard', format('it is published by %I: subscribers would be sent another table', p.pubname)
FROM pg_publication_tables p JOIN pg_class c ON c.relname = p.tablename JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = p.schemaname
WHERE c.oid = $1::bigint::oid
UNION SELECT 'hard', 'a subscription writes to it: it finds the table by its name, and writes to no view'
FROM pg_subscription_rel WHERE srrelid = $1::bigint::oid
UNION SELECT DISTINCT 'hard', format('view %s groups by the key alone, which a view has none of: it has to name all columns that it shows', v.oid::regclass)
FROM pg_constraint k JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid
JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
WHERE k.conrelid = $1::bigint::oid AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1::bigint::oid AND conname = 'pgtend_one_form')
-- A whole row (attribute 0) leaves no trace in pg_depend.
UNION SELECT DISTINCT CASE WHEN is_read THEN 'hard' ELSE 'note' END,
    format(CASE WHEN is_read THEN 'materialized view %s reads the column' ELSE 'materialized view %s goes on: it does not read the column' END, view)
FROM (SELECT r.ev_class::regclass AS view, bool_or(d.refobjsubid = $2::int2 OR r.ev_action::text ~ ':varattno 0 ') AS is_read
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND v.relkind = 'm'
GROUP BY 1) m
UNION SELECT 'hard', format('it has a rule: %I', r.rulename) FROM pg_rewrite r WHERE r.ev_class = $1::bigint::oid
UNION SELECT DISTINCT 'hard', format('rule %I of %s reads it: it would go on with the table behind the view', r.rulename, r.ev_class::regclass)
FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND r.ev_class <> $1::bigint::oid AND r.rulename <> '_RETURN'
UNION SELECT DISTINCT 'hard', format('%s depends on it by more than its name', pg_describe_object(d.classid, d.objid, 0))
FROM pg_depend d
WHERE d.deptype = 'n' AND (
    d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND (d.classid = 'pg_proc'::regclass
        OR d.classid = 'pg_policy'::regclass AND d.objid NOT IN (SELECT oid FROM pg_policy WHERE polrelid = $1::bigint::oid))
    OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
        SELECT reltype FROM pg_class WHERE oid = $1::bigint::oid UNION SELECT typarray FROM pg_type WHERE typrelid = $1::bigint::oid))
UNION SELECT 'hard', format('%s inherits from it', inhrelid::regclass) FROM pg_inherits WHERE inhparent = $1::bigint::oid
UNION SELECT 'hard', format('it is a partition of %1$s, or inherits from it: method = "toast" is for these', inhparent::regclass)
FROM pg_inherits WHERE inhrelid = $1::bigint::oid
UNION SELECT 'hard', format('column %I has privileges of its own', a.attname)
FROM pg_attribute a WHERE a.attrelid = $1::bigint::oid AND a.attacl IS NOT NULL AND NOT a.attisdropped
UNION SELECT 'hard', 'it has row security, which a view passes on since PostgreSQL 15 only'
FROM pg_class WHERE oid = $1::bigint::oid AND relrowsecurity AND current_setting('server_version_num')::int < 150000
UNION SELECT DISTINCT 'hard', format('view %s reads it with the rights of its owner, which a view over row security does not pass on', v.oid::regclass)
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class JOIN pg_class t ON t.oid = $1::bigint::oid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND v.relkind = 'v' AND t.relrowsecurity
  AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = v.oid AND tgname = 'pgtend_write')
  AND NOT EXISTS (SELECT FROM pg_options_to_table(v.reloptions)
                  WHERE CASE WHEN option_name = 'security_invoker' THEN option_value::boolean ELSE false END)
UNION SELECT 'hard', 'it is temporary' FROM pg_class WHERE oid = $1::bigint::oid AND relpersistence = 't'
UNION SELECT 'hard', 'it belongs to an extension' FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = $1::bigint::oid AND deptype = 'e'
UNION SELECT 'soft', format('function %s names it together with ON CONFLICT, TRUNCATE or MERGE, which a view does not take', p.oid::regprocedure)
FROM pg_proc p, word WHERE p.pronamespace <> 'pg_catalog'::regnamespace AND p.prosrc ~* word.table_name
  AND (p.prosrc ~* '\mon\s+conflict\M|\mtruncate\M' OR p.prosrc ~* '\mmerge\s+into\M' AND current_setting('server_version_num')::int < 170000)
-- A trigger of a view reads back what it wrote.
UNION SELECT 'soft', format('%1$s may %2$s, and not SELECT, which every write through a view needs: GRANT SELECT ON %3$s TO %1$s', role, may, $1::bigint::oid::regclass)
FROM (SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') AS role, string_agg(DISTINCT g.privilege_type, ', ') AS may
    FROM pg_class c, aclexplode(c.relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
    WHERE c.oid = $1::bigint::oid AND g.grantee <> c.relowner AND g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')
      AND NOT coalesce(has_table_privilege(r.oid, c.oid, 'SELECT'),
                       EXISTS (SELECT FROM aclexplode(c.relacl) p WHERE p.grantee = 0 AND p.privilege_type = 'SELECT'))
    GROUP BY 1) writer
UNION SELECT 'soft', format('policy %I lets rows be inserted that no policy shows for certain: through a view, inserting such a row fails', a.polname)
FROM policy a WHERE a.polpermissive AND a.polcmd IN ('a', '*') AND coalesce(a.written, a.shown) IS NOT NULL AND NOT EXISTS (
    SELECT FROM policy s WHERE s.polpermissive AND s.polcmd IN ('r', '*') AND (0::oid = ANY (s.polroles) OR s.polroles @> a.polroles)
      AND s.shown IN ('true', coalesce(a.written, a.shown)))
UNION SELECT 'note', format('foreign key %I of %s goes on: it refers to the table by its number, whatever its name', k.conname, k.conrelid::regclass)
FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = $1::bigint::oid AND k.conparentid = 0
ORDER BY 1, 2
