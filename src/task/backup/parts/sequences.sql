-- Follows `WITH RECURSIVE given (oid, rows) AS (...), sets (schema, name, value, is_called) AS (...),`: a table, SQL of the relation with its rows, and what a set
-- says of sequences. A statement for each sequence behind a column of the table, which moves it past the rows, and to the value of the set at least; never back.
-- Behind a column is the sequence that it owns, and that of its default. Where this login may not move it, the statement is NULL.
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
    SELECT d.refobjid AS relation, d.refobjsubid AS place, d.objid AS sequence
    FROM pg_catalog.pg_depend d
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refobjid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM above)) AND d.deptype OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'i']::pg_catalog."char"[])
    UNION
    SELECT f.adrelid, f.adnum, d.refobjid
    FROM pg_catalog.pg_attrdef f
    JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) f.oid
     AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_expr(f.adbin, f.adrelid) AS text) e
    WHERE f.adrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM above))
      -- The next number as it is, and no other expression.
      AND (e.text OPERATOR(pg_catalog.~~) 'nextval(%::regclass)' OR e.text OPERATOR(pg_catalog.~~) '(nextval(%::regclass))::%'
           OR e.text OPERATOR(pg_catalog.~~) 'pg_catalog.nextval(%::regclass)')
      AND e.text OPERATOR(pg_catalog.!~~) '%nextval(%nextval(%'
)
SELECT DISTINCT n.nspname::pg_catalog.text AS schema, s.relname::pg_catalog.text AS name, a.attname::pg_catalog.text AS column,
       CASE WHEN pg_catalog.has_sequence_privilege(s.oid, 'SELECT') AND pg_catalog.has_sequence_privilege(s.oid, 'UPDATE') THEN pg_catalog.format(
           'SELECT pg_catalog.setval(%L::pg_catalog.regclass, w.value::pg_catalog.int8, w.is_called)::pg_catalog.text
            FROM %s s, (SELECT value, is_called FROM (SELECT pg_catalog.%s(%I)::pg_catalog.numeric AS value, true AS is_called FROM %s%s) x
                        WHERE value OPERATOR(pg_catalog.>=) %L::pg_catalog.numeric AND value OPERATOR(pg_catalog.<=) %L::pg_catalog.numeric
                        ORDER BY value %s, is_called DESC LIMIT 1) w
            WHERE w.value OPERATOR(pg_catalog.%s) s.last_value OR w.value OPERATOR(pg_catalog.=) s.last_value AND w.is_called AND NOT s.is_called',
           pg_catalog.format('%I.%I', n.nspname, s.relname), pg_catalog.format('%I.%I', n.nspname, s.relname),
           CASE WHEN q.seqincrement OPERATOR(pg_catalog.>) 0 THEN 'max' ELSE 'min' END, a.attname, (SELECT rows FROM given),
           (SELECT pg_catalog.format(' UNION ALL SELECT %L::pg_catalog.numeric, %L::pg_catalog.bool', o.value, o.is_called) FROM sets o
            WHERE o.schema::pg_catalog.text OPERATOR(pg_catalog.=) n.nspname::pg_catalog.text AND o.name::pg_catalog.text OPERATOR(pg_catalog.=) s.relname::pg_catalog.text LIMIT 1),
           q.seqmin, q.seqmax,
           CASE WHEN q.seqincrement OPERATOR(pg_catalog.>) 0 THEN 'DESC' ELSE 'ASC' END,
           CASE WHEN q.seqincrement OPERATOR(pg_catalog.>) 0 THEN '>' ELSE '<' END) END AS statement
FROM behind b
JOIN pg_catalog.pg_class s ON s.oid OPERATOR(pg_catalog.=) b.sequence AND s.relkind OPERATOR(pg_catalog.=) 'S'
JOIN pg_catalog.pg_sequence q ON q.seqrelid OPERATOR(pg_catalog.=) s.oid AND NOT q.seqcycle
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.relnamespace
JOIN pg_catalog.pg_attribute named ON named.attrelid OPERATOR(pg_catalog.=) b.relation AND named.attnum OPERATOR(pg_catalog.=) b.place
JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) (SELECT oid FROM given) AND a.attname OPERATOR(pg_catalog.=) named.attname
 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped AND a.atttypid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM numbers))
ORDER BY 1, 2, 3
