-- What is dumped for the seeds of the fuzz targets: a little of everything that pg_dump writes in its own way.
CREATE ROLE a; CREATE ROLE o;
CREATE SCHEMA s AUTHORIZATION a;
CREATE SCHEMA "We ird; \ $$ '";
CREATE TYPE s.mood AS ENUM ('sad', 'it''s');
CREATE DOMAIN s.d AS text CONSTRAINT c CHECK (VALUE <> 'x;') DEFAULT 'a\b';
CREATE TABLE s.t (
    id integer PRIMARY KEY, x text CONSTRAINT c CHECK (x <> 'a;b') NOT NULL DEFAULT E'back\\slash', m s.mood, d s.d, j jsonb,
    n numeric(10, 2) GENERATED ALWAYS AS (id * 1.5) STORED, b bytea, "end" date DEFAULT '2026-01-01'
);
INSERT INTO s.t (id, x, m, j, b) SELECT i, repeat('é\' || chr(9) || chr(10) || '.', i), 'it''s', '{"a": "\\."}', '\x00ff'
FROM generate_series(1, 9) i;
INSERT INTO s.t (id, x) VALUES (100, E'\\.'), (101, E'\\N'), (102, E'\n\\.\n'), (103, '');
ALTER TABLE s.t OWNER TO a;
CREATE TABLE "We ird; \ $$ '"."COPY ""x"" FROM stdin;" ("a ""b" integer, c integer REFERENCES s.t, EXCLUDE USING btree (c WITH =));
INSERT INTO "We ird; \ $$ '"."COPY ""x"" FROM stdin;" VALUES (1, 1), (2, NULL);
CREATE TABLE "We ird; \ $$ '".none ();
CREATE TABLE s.part (at date NOT NULL, x int) PARTITION BY RANGE (at);
CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX i ON s.part (x) INCLUDE (at) WHERE x > 0;
CREATE UNIQUE INDEX "i;" ON s.t (lower(x), (id % 7));
ALTER TABLE s.t CLUSTER ON "i;";
ALTER TABLE s.t REPLICA IDENTITY USING INDEX t_pkey;
CREATE STATISTICS s.st ON x, m FROM s.t;
CREATE SEQUENCE s.q INCREMENT -3 MINVALUE -100 MAXVALUE 100 CYCLE; SELECT nextval('s.q');
CREATE FUNCTION s.f(a integer, b text DEFAULT ';') RETURNS integer LANGUAGE plpgsql IMMUTABLE COST 1 AS $_$
DECLARE x text := $$ it's; \. $$; BEGIN /* ; */ RETURN a; END $_$;
CREATE FUNCTION s.g() RETURNS integer LANGUAGE sql BEGIN ATOMIC
    SELECT CASE WHEN true THEN 1 ELSE 2 END AS "case"; SELECT (SELECT 2 AS "end") + 1; END;
CREATE FUNCTION s."begin"(x integer) RETURNS integer LANGUAGE sql RETURN x + 1;
CREATE PROCEDURE s.p() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE s.sum(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
CREATE OPERATOR s.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq, COMMUTATOR = OPERATOR(s.===));
CREATE FUNCTION s.g2(s.mood) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE CAST (s.mood AS integer) WITH FUNCTION s.g2(s.mood);
CREATE VIEW s.v AS SELECT x, 'it''s;' AS y, E'\\' AS z FROM s.t;
CREATE MATERIALIZED VIEW s.m AS SELECT count(*) AS n FROM s.t;
CREATE RULE r AS ON INSERT TO s.part DO ALSO (SELECT 1; SELECT 2);
CREATE FUNCTION s.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE INSERT ON s.t FOR EACH ROW WHEN (NEW.x <> ';') EXECUTE FUNCTION s.trigger('an argument;');
CREATE CONSTRAINT TRIGGER ct AFTER UPDATE ON s.t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION s.trigger();
CREATE POLICY p ON s.t FOR SELECT TO a, o USING (x = current_user);
ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION s.event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER e ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION s.event();
ALTER EVENT TRIGGER e ENABLE ALWAYS;
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER srv FOREIGN DATA WRAPPER w OPTIONS (host 'it''s;'); CREATE USER MAPPING FOR o SERVER srv OPTIONS ("user" 'x');
CREATE FOREIGN TABLE s.ft (a int OPTIONS (b 'c')) SERVER srv;
CREATE TEXT SEARCH DICTIONARY s.dict (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION s.config (COPY = english);
CREATE COLLATION s.coll FROM "C";
CREATE PUBLICATION pub FOR TABLE s.part;
CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1' PUBLICATION pub WITH (connect = false, slot_name = 'precious');
GRANT SELECT (x), UPDATE (m) ON s.t TO o WITH GRANT OPTION; GRANT USAGE ON SCHEMA s TO o; REVOKE ALL ON FUNCTION s.g() FROM PUBLIC;
SET ROLE a; GRANT SELECT ON s.t TO PUBLIC; RESET ROLE;
ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT SELECT ON TABLES TO o;
COMMENT ON TABLE s.t IS E'it''s\n-- PostgreSQL database dump complete\n\\! id\n;';
COMMENT ON CONSTRAINT c ON s.t IS 'c'; COMMENT ON CONSTRAINT c ON DOMAIN s.d IS 'c;'; COMMENT ON INDEX s."i;" IS 'i';
SELECT lo_from_bytea(16400, '\x00ff27'); SELECT lo_from_bytea(16401, 'x'); ALTER LARGE OBJECT 16400 OWNER TO a;
REFRESH MATERIALIZED VIEW s.m; ANALYZE s.t;
