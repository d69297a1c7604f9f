-- Follows `WITH RECURSIVE given (oid) AS (...),`: a table. The sequences behind its columns: those that a column owns, and those that a default mentions.
numbers AS (
    SELECT t.oid FROM pg_catalog.pg_type t
    WHERE t.oid OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.int2', 'pg_catalog.int4', 'pg_catalog.int8', 'pg_catalog.numeric']::pg_catalog.regtype[]::pg_catalog.oid[])
    UNION SELECT d.oid FROM numbers JOIN pg_catalog.pg_type d ON d.typtype OPERATOR(pg_catalog.=) 'd' AND d.typbasetype OPERATOR(pg_catalog.=) numbers.oid
), above AS (
    -- The identity of a partition is that of its root.
    SELECT oid FROM given
    UNION SELECT i.inhparent FROM above JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) above.oid
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhparent AND c.relkind OPERATOR(pg_catalog.=) 'p'
), behind AS (
    SELECT d.refobjid AS relation, d.refobjsubid AS place, d.objid AS sequence, true AS is_number
    FROM pg_catalog.pg_depend d
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refobjid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM above)) AND d.deptype OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'i']::pg_catalog."char"[])
    UNION
    SELECT f.adrelid, f.adnum, d.refobjid,
           -- The next number as it is, and no other expression.
           (e.text OPERATOR(pg_catalog.~~) 'nextval(%::regclass)' OR e.text OPERATOR(pg_catalog.~~) '(nextval(%::regclass))::%'
            OR e.text OPERATOR(pg_catalog.~~) 'pg_catalog.nextval(%::regclass)')
           AND e.text OPERATOR(pg_catalog.!~~) '%nextval(%nextval(%'
    FROM pg_catalog.pg_attrdef f
    JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) f.oid
     AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_expr(f.adbin, f.adrelid) AS text) e
    WHERE f.adrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM above))
)
SELECT n.nspname::pg_catalog.text AS schema, s.relname::pg_catalog.text AS name, a.attname::pg_catalog.text AS column,
       pg_catalog.bool_or(b.is_number) AND a.atttypid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM numbers)) AS is_number,
       pg_catalog.has_sequence_privilege(s.oid, 'SELECT') AS may_look, pg_catalog.has_sequence_privilege(s.oid, 'UPDATE') AS may_move,
       q.seqincrement AS increment, q.seqmin AS least, q.seqmax AS most, q.seqcycle AS cycles
FROM behind b
JOIN pg_catalog.pg_class s ON s.oid OPERATOR(pg_catalog.=) b.sequence AND s.relkind OPERATOR(pg_catalog.=) 'S'
JOIN pg_catalog.pg_sequence q ON q.seqrelid OPERATOR(pg_catalog.=) s.oid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.relnamespace
JOIN pg_catalog.pg_attribute named ON named.attrelid OPERATOR(pg_catalog.=) b.relation AND named.attnum OPERATOR(pg_catalog.=) b.place
JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) (SELECT oid FROM given) AND a.attname OPERATOR(pg_catalog.=) named.attname
 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
GROUP BY n.nspname, s.relname, s.oid, a.attname, a.atttypid, q.seqincrement, q.seqmin, q.seqmax, q.seqcycle
ORDER BY 1, 2, 3
