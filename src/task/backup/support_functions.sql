-- Functions of operator classes and families that an index would call although nobody may (it asks for no right), or with values of other types
-- than theirs (only a superuser makes such a class, so the server does not look). `known` are the entries of pg_amproc that no
-- dump made: those of $1, or if that is NULL, PostgreSQL's and those of extensions. An entry of a B-tree or a hash is fit if it has the signature that the access method calls
-- (PostgreSQL manual, "Operator Classes and Operator Families"), or if a known one says the same of the same types. Other access methods hand
-- over addresses, so nothing is fit there.
known AS (
    SELECT r.oid FROM pg_catalog.pg_amproc r
    WHERE CASE WHEN $1::pg_catalog.int8[] IS NOT NULL THEN r.oid::pg_catalog.int8 = ANY ($1)
          ELSE r.amprocfamily < 16384 OR EXISTS (
              SELECT FROM pg_catalog.pg_depend d
              WHERE d.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND d.objid = r.amprocfamily AND d.deptype = 'e') END
), unfit AS (
    SELECT r.amprocfamily AS family,
           pg_catalog.format('FUNCTION %s (%s, %s) %s of the operator family %I.%I', r.amprocnum, r.amproclefttype::pg_catalog.regtype,
                             r.amprocrighttype::pg_catalog.regtype, r.amproc::pg_catalog.regprocedure, n.nspname, f.opfname) AS what
    FROM pg_catalog.pg_amproc r
    JOIN pg_catalog.pg_opfamily f ON f.oid = r.amprocfamily
    JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace
    JOIN pg_catalog.pg_am m ON m.oid = f.opfmethod
    JOIN pg_catalog.pg_proc p ON p.oid = r.amproc
    WHERE r.oid NOT IN (SELECT known.oid FROM known)
      AND NOT coalesce(
          m.amname IN ('btree', 'hash')
          -- A function of the dump's belongs to the role that restores.
          AND (pg_catalog.has_function_privilege('public', p.oid, 'EXECUTE')
               OR p.oid >= 16384 AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'))
          AND (EXISTS (
                   SELECT FROM known JOIN pg_catalog.pg_amproc k ON k.oid = known.oid JOIN pg_catalog.pg_opfamily kf ON kf.oid = k.amprocfamily
                   WHERE kf.opfmethod = f.opfmethod AND k.amprocnum = r.amprocnum AND k.amproc = r.amproc
                     AND k.amproclefttype = r.amproclefttype AND k.amprocrighttype = r.amprocrighttype)
               OR NOT EXISTS (
                   SELECT FROM pg_catalog.pg_type t WHERE t.oid IN (r.amproclefttype, r.amprocrighttype) AND t.typtype = 'p')
                  AND p.proargtypes::pg_catalog.text = CASE pg_catalog.format('%s %s', m.amname, r.amprocnum)
                      WHEN 'btree 1' THEN pg_catalog.format('%s %s', r.amproclefttype::pg_catalog.int8, r.amprocrighttype::pg_catalog.int8)
                      -- in_range (value, base, offset, boolean, boolean)
                      WHEN 'btree 3' THEN pg_catalog.format('%1$s %1$s %2$s 16 16', r.amproclefttype::pg_catalog.int8, r.amprocrighttype::pg_catalog.int8)
                      -- equalimage (oid)
                      WHEN 'btree 4' THEN '26'
                      WHEN 'hash 1' THEN r.amproclefttype::pg_catalog.int8::pg_catalog.text
                      -- with a salt, a bigint
                      WHEN 'hash 2' THEN pg_catalog.format('%s 20', r.amproclefttype::pg_catalog.int8)
                  END), false)
)
