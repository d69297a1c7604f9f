-- The columns of the unique index of table $1 (its oid) by which a row is recognized, with the operator by which each is compared: of the primary key, or else of
-- another index over columns that are not null. None that is deferrable, partial, over expressions, or of another equality than its columns; none with columns that $2 lacks.
WITH found AS (
    SELECT i.indexrelid, i.indrelid, i.indkey, i.indclass, i.indnkeyatts
    FROM pg_catalog.pg_index i
    WHERE i.indrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (
          SELECT FROM pg_catalog.generate_series(0, i.indnkeyatts OPERATOR(pg_catalog.-) 1) k (place)
          JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) i.indkey[k.place]
          WHERE NOT a.attnotnull OR a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog."char"
             -- Rows that one collation tells apart are equal in another.
             OR i.indcollation[k.place] OPERATOR(pg_catalog.<>) a.attcollation AND EXISTS (
                 SELECT FROM pg_catalog.pg_collation c WHERE NOT c.collisdeterministic
                  AND (c.oid OPERATOR(pg_catalog.=) i.indcollation[k.place] OR c.oid OPERATOR(pg_catalog.=) a.attcollation))
             OR a.attname::pg_catalog.text OPERATOR(pg_catalog.<>) ALL ($2::pg_catalog.text[]))
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1
)
SELECT a.attname::pg_catalog.text,
       pg_catalog.json_build_object(
           'name', pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname), 'left', pg_catalog.format('%I.%I', ls.nspname, l.typname),
           'right', pg_catalog.format('%I.%I', rs.nspname, r.typname))
FROM found i
CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts OPERATOR(pg_catalog.-) 1) k (place)
JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) i.indkey[k.place]
JOIN pg_catalog.pg_opclass oc ON oc.oid OPERATOR(pg_catalog.=) i.indclass[k.place]
JOIN pg_catalog.pg_am am ON am.oid OPERATOR(pg_catalog.=) oc.opcmethod AND am.amname OPERATOR(pg_catalog.=) 'btree'
JOIN pg_catalog.pg_amop p ON p.amopfamily OPERATOR(pg_catalog.=) oc.opcfamily AND p.amoplefttype OPERATOR(pg_catalog.=) oc.opcintype
 AND p.amoprighttype OPERATOR(pg_catalog.=) oc.opcintype AND p.amopstrategy OPERATOR(pg_catalog.=) 3
JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) p.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
JOIN pg_catalog.pg_type l ON l.oid OPERATOR(pg_catalog.=) o.oprleft
JOIN pg_catalog.pg_namespace ls ON ls.oid OPERATOR(pg_catalog.=) l.typnamespace
JOIN pg_catalog.pg_type r ON r.oid OPERATOR(pg_catalog.=) o.oprright
JOIN pg_catalog.pg_namespace rs ON rs.oid OPERATOR(pg_catalog.=) r.typnamespace
ORDER BY k.place
