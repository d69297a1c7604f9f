-- Objects in a dump of this database that only a superuser may create. Objects of an extension do not count: the extension creates them.
-- Event triggers are passed by in a scratch database. $2: in a server of its own, where a superuser runs what src/task/backup/by_superuser.rs knows.
-- `unfit` is in support_functions.sql, which comes before.
member AS MATERIALIZED (
    SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'
), of_indexes AS (
    SELECT f.oid, m.amname IN ('btree', 'hash') AND unfit.what IS NULL AS is_known,
           CASE WHEN m.amname IN ('btree', 'hash') THEN ', which calls ' || unfit.what ELSE ' for ' || m.amname END AS more
    FROM pg_catalog.pg_opfamily f JOIN pg_catalog.pg_am m ON m.oid = f.opfmethod
    LEFT JOIN (SELECT family, pg_catalog.min(what) AS what FROM unfit GROUP BY family) unfit ON unfit.family = f.oid
), made AS (
    SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass AS classid, oid, pg_catalog.format('the foreign-data wrapper %I', fdwname) AS what,
           fdwhandler = 0 AND fdwvalidator = 0 AS is_known
    FROM pg_catalog.pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass, oid, pg_catalog.format('the publication %I for all tables', pubname), true
    FROM pg_catalog.pg_publication WHERE puballtables
    -- pg_publication_namespace is there since PostgreSQL 15.
    UNION ALL SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass, p.oid, pg_catalog.format('the publication %I for the tables of a schema', pubname), true
    FROM pg_catalog.pg_publication p WHERE EXISTS (
        SELECT FROM pg_catalog.pg_depend d WHERE d.classid = pg_catalog.to_regclass('pg_catalog.pg_publication_namespace')
            AND d.refclassid = 'pg_catalog.pg_publication'::pg_catalog.regclass AND d.refobjid = p.oid)
    UNION ALL SELECT 'pg_catalog.pg_ts_template'::pg_catalog.regclass, oid, pg_catalog.format('the text search template %I', tmplname), false
    FROM pg_catalog.pg_ts_template
    UNION ALL SELECT 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, oid, pg_catalog.format('the text search parser %I', prsname), false
    FROM pg_catalog.pg_ts_parser
    UNION ALL SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass, oid,
                     pg_catalog.format('the cast WITHOUT FUNCTION from %s to %s', castsource::pg_catalog.regtype, casttarget::pg_catalog.regtype), false
    FROM pg_catalog.pg_cast WHERE castmethod = 'b'
    UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid,
                     pg_catalog.format('the function %I.%I (%s)', n.nspname, p.proname,
                                       CASE WHEN l.lanpltrusted THEN 'leakproof' ELSE 'in ' || l.lanname END), false
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE (NOT l.lanpltrusted OR p.proleakproof) AND n.nspname NOT LIKE 'pg\_%'
    UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, c.oid, pg_catalog.format('the operator class %I%s', opcname, i.more), i.is_known
    FROM pg_catalog.pg_opclass c JOIN of_indexes i ON i.oid = c.opcfamily
    UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, f.oid, pg_catalog.format('the operator family %I%s', opfname, i.more), i.is_known
    FROM pg_catalog.pg_opfamily f JOIN of_indexes i ON i.oid = f.oid WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_opclass c WHERE c.opcfamily = f.oid)
    UNION ALL SELECT 'pg_catalog.pg_am'::pg_catalog.regclass, oid, pg_catalog.format('the access method %I', amname), false FROM pg_catalog.pg_am
)
SELECT what FROM made
WHERE oid >= 16384 AND NOT ($2 AND is_known) AND NOT EXISTS (SELECT FROM member WHERE member.classid = made.classid AND member.objid = made.oid)
ORDER BY 1
