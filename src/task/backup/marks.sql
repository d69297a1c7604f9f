-- The oldest transactions that made rows of shared catalogs about each database: its own row, its owner, grants, settings and comment, and the owners of what is in
-- it. DROP DATABASE deletes them all, and a number that was given out is not given out again, so that no other database has one of them. VACUUM changes none
-- (FREEZE and FULL neither); ALTER DATABASE and GRANT change some. A role that is made by initdb is in no such row.
SELECT d.oid::pg_catalog.int8, ARRAY(
    SELECT m.made_by FROM (
        SELECT d.made_by, d.age
        UNION SELECT s.xmin::pg_catalog.text, pg_catalog.age(s.xmin) FROM pg_catalog.pg_shdepend s WHERE s.dbid OPERATOR(pg_catalog.=) d.oid
        UNION SELECT s.xmin::pg_catalog.text, pg_catalog.age(s.xmin) FROM pg_catalog.pg_shdepend s
              WHERE s.dbid OPERATOR(pg_catalog.=) 0 AND s.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objid OPERATOR(pg_catalog.=) d.oid
        UNION SELECT s.xmin::pg_catalog.text, pg_catalog.age(s.xmin) FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase OPERATOR(pg_catalog.=) d.oid
        UNION SELECT s.xmin::pg_catalog.text, pg_catalog.age(s.xmin) FROM pg_catalog.pg_shdescription s
              WHERE s.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objoid OPERATOR(pg_catalog.=) d.oid
    ) m ORDER BY m.age DESC LIMIT 16)
FROM (SELECT oid, xmin::pg_catalog.text AS made_by, pg_catalog.age(xmin) AS age FROM pg_catalog.pg_database
      WHERE oid::pg_catalog.int8 OPERATOR(pg_catalog.=) ANY ($1)) d
