-- What benches/audit.py plants: for each check a database with the fault, and a healthy twin that looks like it. `--! CHECK: OBJECT | OBJECT` begins a case and
-- names what has to be found (keys without their check), `--! twin` its healthy twin, `--! healthy` a database of which nothing is to be said, `--! also KEY` what comes with the fault by nature, `--! undo` what
-- ends it where it is of the server, `--! keys` keys of the [audit] job, `--! session` a session that stays open with this statement,
-- `--! unanalyzed` that it is not analyzed at the end.

--! sequence-near-end: public.tickets_id_seq
CREATE TABLE tickets (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
SELECT setval('tickets_id_seq', 2000000000);
--! twin
CREATE TABLE tickets (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, turn int GENERATED ALWAYS AS IDENTITY (CYCLE));
SELECT setval('tickets_id_seq', 2000000000), setval('tickets_turn_seq', 2000000000);

--! key-near-end: public.imported.id
CREATE TABLE imported (id int PRIMARY KEY);
INSERT INTO imported SELECT 1999999000 + i FROM generate_series(1, 1000) i;
--! twin
CREATE TABLE dice (id int PRIMARY KEY);
INSERT INTO dice SELECT i * 2147483 FROM generate_series(1, 1000) i;
CREATE TABLE imported (id bigint PRIMARY KEY);
INSERT INTO imported SELECT 1999999000 + i FROM generate_series(1, 1000) i;

--! partition-runway: public.events
CREATE TABLE events (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
SELECT format('CREATE TABLE events_%s PARTITION OF events FOR VALUES FROM (%L) TO (%L)', n, date_trunc('day', now()) + make_interval(days => n * 30 - 60), date_trunc('day', now()) + make_interval(days => n * 30 - 30)) FROM generate_series(0, 2) n \gexec
--! twin
CREATE TABLE events (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
SELECT format('CREATE TABLE events_%s PARTITION OF events FOR VALUES FROM (%L) TO (%L)', n, date_trunc('day', now()) + make_interval(days => n * 30 - 60), date_trunc('day', now()) + make_interval(days => n * 30 - 30)) FROM generate_series(0, 6) n \gexec

--! default-partition-rows: public.readings_rest
CREATE TABLE readings (id bigint, of int NOT NULL, PRIMARY KEY (id, of)) PARTITION BY LIST (of);
CREATE TABLE readings_1 PARTITION OF readings FOR VALUES IN (1);
CREATE TABLE readings_rest PARTITION OF readings DEFAULT;
INSERT INTO readings VALUES (1, 1), (2, 7);
--! twin
CREATE TABLE readings (id bigint, of int NOT NULL, PRIMARY KEY (id, of)) PARTITION BY LIST (of);
CREATE TABLE readings_1 PARTITION OF readings FOR VALUES IN (1);
CREATE TABLE readings_rest PARTITION OF readings DEFAULT;
INSERT INTO readings VALUES (1, 1);

--! append-only-unbounded: public.execution_logs
CREATE TABLE execution_logs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, status text, created_at timestamptz NOT NULL DEFAULT now());
INSERT INTO execution_logs (status) SELECT 'ok' FROM generate_series(1, 20000);
--! twin
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, created_at timestamptz NOT NULL DEFAULT now());
INSERT INTO customers (name) SELECT 'customer ' || i FROM generate_series(1, 20000) i;
UPDATE customers SET name = name || '.' WHERE id <= 4000;

--! no-primary-key: public.legacy
CREATE TABLE legacy (number int, word text);
INSERT INTO legacy SELECT i, 'w' FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE legacy (number int PRIMARY KEY, word text);
INSERT INTO legacy SELECT i, 'w' FROM generate_series(1, 2000) i;
CREATE TABLE to_come (number int);

--! fk-unindexed: public.orders(customer_id)
CREATE TABLE customers (id int PRIMARY KEY);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers ON DELETE RESTRICT, is_open bool);
CREATE INDEX ON orders (customer_id) WHERE is_open;
INSERT INTO customers SELECT generate_series(1, 500);
INSERT INTO orders SELECT i, 1 + i % 500, i % 9 = 0 FROM generate_series(1, 5000) i;
--! twin
CREATE TABLE customers (id int PRIMARY KEY);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers ON DELETE RESTRICT, is_open bool);
CREATE INDEX ON orders (customer_id) WHERE customer_id IS NOT NULL;
INSERT INTO customers SELECT generate_series(1, 500);
INSERT INTO orders SELECT i, 1 + i % 500, i % 9 = 0 FROM generate_series(1, 5000) i;

--! fk-no-on-delete: public.orders orders_customer_id_fkey
CREATE TABLE customers (id int PRIMARY KEY);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers);
CREATE INDEX ON orders (customer_id);
INSERT INTO customers SELECT generate_series(1, 500);
INSERT INTO orders SELECT i, 1 + i % 500 FROM generate_series(1, 5000) i;
--! twin
CREATE TABLE customers (id int PRIMARY KEY);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers DEFERRABLE, payer_id int REFERENCES customers ON DELETE SET NULL);
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON orders (payer_id);
INSERT INTO customers SELECT generate_series(1, 500);
INSERT INTO orders SELECT i, 1 + i % 500, 7 FROM generate_series(1, 5000) i;

--! fk-type-mismatch: public.payments paid_by
CREATE TABLE customers (id bigint PRIMARY KEY);
CREATE TABLE payments (id int PRIMARY KEY, customer_id int CONSTRAINT paid_by REFERENCES customers ON DELETE RESTRICT);
CREATE INDEX ON payments (customer_id);
--! twin
CREATE TABLE countries (code varchar(2) PRIMARY KEY);
CREATE TABLE payments (id int PRIMARY KEY, country text CONSTRAINT paid_in REFERENCES countries ON DELETE RESTRICT);
CREATE INDEX ON payments (country);

--! fk-duplicate: public.calls again
CREATE TABLE customers (id bigint PRIMARY KEY);
CREATE TABLE calls (id int PRIMARY KEY, customer_id bigint CONSTRAINT first REFERENCES customers ON DELETE RESTRICT CONSTRAINT again REFERENCES customers ON DELETE RESTRICT);
CREATE INDEX ON calls (customer_id);
--! twin
CREATE TABLE customers (id bigint PRIMARY KEY);
CREATE TABLE partners (id bigint PRIMARY KEY);
CREATE TABLE calls (id int PRIMARY KEY, customer_id bigint CONSTRAINT first REFERENCES customers ON DELETE RESTRICT CONSTRAINT again REFERENCES partners ON DELETE RESTRICT);
CREATE INDEX ON calls (customer_id);

--! fk-orphans: public.books on_shelf
CREATE TABLE shelves (id int PRIMARY KEY);
CREATE TABLE books (id int PRIMARY KEY, shelf int CONSTRAINT on_shelf REFERENCES shelves ON DELETE RESTRICT);
CREATE INDEX ON books (shelf);
INSERT INTO shelves SELECT generate_series(1, 100);
SET session_replication_role = replica;
INSERT INTO books SELECT i, 1 + i % 110 FROM generate_series(1, 3000) i;
--! twin
CREATE TABLE shelves (id int PRIMARY KEY);
CREATE TABLE books (id int PRIMARY KEY, shelf int CONSTRAINT on_shelf REFERENCES shelves ON DELETE RESTRICT);
CREATE INDEX ON books (shelf);
INSERT INTO shelves SELECT generate_series(1, 110);
SET session_replication_role = replica;
INSERT INTO books SELECT i, nullif(1 + i % 110, 7) FROM generate_series(1, 3000) i;

--! one-to-one-not-unique: public.analyses(script_id)
CREATE TABLE scripts (id int PRIMARY KEY);
CREATE TABLE analyses (id int PRIMARY KEY, script_id int NOT NULL REFERENCES scripts ON DELETE CASCADE);
CREATE INDEX ON analyses (script_id);
INSERT INTO scripts SELECT generate_series(1, 2000);
INSERT INTO analyses SELECT i, i FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE scripts (id int PRIMARY KEY);
CREATE TABLE analyses (id int PRIMARY KEY, script_id int NOT NULL UNIQUE REFERENCES scripts ON DELETE CASCADE);
CREATE TABLE versions (id int PRIMARY KEY, script_id int NOT NULL REFERENCES scripts ON DELETE CASCADE);
CREATE INDEX ON versions (script_id);
INSERT INTO scripts SELECT generate_series(1, 2000);
INSERT INTO analyses SELECT i, i FROM generate_series(1, 2000) i;
INSERT INTO versions SELECT i, 1 + i % 1999 FROM generate_series(1, 2000) i;

--! constraint-not-validated: public.comments comments_body
CREATE TABLE comments (id int PRIMARY KEY, body text);
ALTER TABLE comments ADD CONSTRAINT comments_body CHECK (body <> '') NOT VALID;
INSERT INTO comments SELECT i, 'well' FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE comments (id int PRIMARY KEY, body text CONSTRAINT comments_body CHECK (body <> ''));
INSERT INTO comments SELECT i, 'well' FROM generate_series(1, 2000) i;

--! updated-at-no-trigger: public.notes.updated_at
CREATE TABLE notes (id int PRIMARY KEY, updated_at timestamptz);
INSERT INTO notes SELECT i, now() FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE notes (id int PRIMARY KEY, updated_at timestamptz);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO notes SELECT i, now() FROM generate_series(1, 2000) i;

--! soft-delete-half-applied: public.versions
CREATE TABLE scripts (id int PRIMARY KEY, deleted_at timestamptz);
CREATE TABLE versions (id int PRIMARY KEY, script_id int REFERENCES scripts ON DELETE CASCADE);
CREATE INDEX ON versions (script_id);
--! twin
CREATE TABLE scripts (id int PRIMARY KEY, deleted_at timestamptz);
CREATE TABLE tags (id int PRIMARY KEY);
CREATE TABLE script_tags (script_id int REFERENCES scripts ON DELETE CASCADE, tag_id int REFERENCES tags ON DELETE CASCADE, PRIMARY KEY (script_id, tag_id));
CREATE INDEX ON script_tags (tag_id);
CREATE TABLE versions (id int PRIMARY KEY, script_id int REFERENCES scripts ON DELETE RESTRICT);
CREATE INDEX ON versions (script_id);

--! lookup-unindexed: public.scripts(file_hash)
CREATE TABLE scripts (id int PRIMARY KEY, file_hash text);
INSERT INTO scripts SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE scripts (id int PRIMARY KEY, file_hash text UNIQUE);
CREATE TABLE logins (id int PRIMARY KEY, password_hash text);
INSERT INTO scripts SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
INSERT INTO logins SELECT i, md5(i::text) FROM generate_series(1, 2000) i;

--! invalid-index: public.pages_url
CREATE TABLE pages (id int PRIMARY KEY, url text);
INSERT INTO pages SELECT i, 'u' FROM generate_series(1, 2000) i;
\set ON_ERROR_STOP off
CREATE UNIQUE INDEX CONCURRENTLY pages_url ON pages (url);
\set ON_ERROR_STOP on
--! twin
CREATE TABLE pages (id int PRIMARY KEY, url text) PARTITION BY RANGE (id);
CREATE TABLE pages_1 PARTITION OF pages FOR VALUES FROM (0) TO (10000);
-- It waits for its partitions, as it should.
CREATE INDEX pages_url ON ONLY pages (url);
INSERT INTO pages SELECT i, 'u' FROM generate_series(1, 2000) i;

--! duplicate-index: public.tags_name_again
CREATE TABLE tags (id int PRIMARY KEY, name text);
CREATE INDEX tags_name ON tags (name);
CREATE INDEX tags_name_again ON tags (name);
INSERT INTO tags SELECT i, i::text FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE tags (id int PRIMARY KEY, name text);
CREATE INDEX tags_name ON tags (name);
CREATE INDEX tags_pattern ON tags (name text_pattern_ops);
CREATE INDEX tags_some ON tags (name) WHERE id > 1000;
INSERT INTO tags SELECT i, i::text FROM generate_series(1, 2000) i;

--! overlapping-index: public.tags_name
CREATE TABLE tags (id int PRIMARY KEY, name text, colour text);
CREATE INDEX tags_name ON tags (name);
CREATE INDEX tags_name_colour ON tags (name, colour);
--! twin
CREATE TABLE tags (id int PRIMARY KEY, name text, colour text);
CREATE UNIQUE INDEX tags_name ON tags (name);
CREATE INDEX tags_name_colour ON tags (name, colour);
CREATE INDEX tags_colour ON tags (colour);

--! unused-index: public.items_word
--! keys statistics_age = "1s"
CREATE TABLE items (id int PRIMARY KEY, word text, kind int);
CREATE INDEX items_word ON items (word);
INSERT INTO items SELECT i, i::text, i % 7 FROM generate_series(1, 2000) i;
SELECT pg_sleep(1.2);
--! twin
CREATE TABLE items (id int PRIMARY KEY, word text, kind int);
CREATE INDEX items_word ON items (word);
INSERT INTO items SELECT i, i::text, i % 7 FROM generate_series(1, 2000) i;
ANALYZE items;
SET enable_seqscan = off;
SELECT count(*) FROM items WHERE word = '7';
SELECT pg_sleep(1.2);

--! index-mostly-null: public.tasks_failed_on
CREATE TABLE tasks (id int PRIMARY KEY, failed_on date);
INSERT INTO tasks SELECT i, CASE WHEN i % 50 = 0 THEN date '2026-01-01' END FROM generate_series(1, 12000) i;
CREATE INDEX tasks_failed_on ON tasks (failed_on);
--! twin
CREATE TABLE tasks (id int PRIMARY KEY, failed_on date);
INSERT INTO tasks SELECT i, CASE WHEN i % 50 = 0 THEN date '2026-01-01' END FROM generate_series(1, 12000) i;
CREATE INDEX tasks_failed_on ON tasks (failed_on) WHERE failed_on IS NOT NULL;

--! index-function-search-path: public.plain(text)
CREATE TABLE people (id int PRIMARY KEY, name text);
CREATE FUNCTION unquoted(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT replace($1, ''-'', '''')';
CREATE FUNCTION plain(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN lower(unquoted($1)); END';
CREATE INDEX people_plain ON people (plain(name));
--! twin
CREATE TABLE people (id int PRIMARY KEY, name text);
CREATE FUNCTION safe(text) RETURNS text IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN RETURN lower($1); END';
CREATE INDEX people_safe ON people (safe(name));
CREATE INDEX people_lower ON people (lower(name));
CREATE FUNCTION only_catalog(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN lower(trim($1)); END';
CREATE INDEX people_only_catalog ON people (only_catalog(name));

--! varchar-near-limit: public.links.url
CREATE TABLE links (id int PRIMARY KEY, url varchar(2048));
INSERT INTO links SELECT i, repeat('u', 100 + i % 1940) || i FROM generate_series(1, 4000) i;
--! twin
CREATE TABLE links (id int PRIMARY KEY, url varchar(2048), code varchar(8), postal_code varchar(10));
INSERT INTO links SELECT i, repeat('u', 100 + i % 1000) || i, lpad(i::text, 8, '0'), lpad(i::text, 5, '0') || CASE i % 3 WHEN 0 THEN '-1234' ELSE '' END FROM generate_series(1, 4000) i;

--! large-text-uncompressed: public.scripts.content
CREATE TABLE scripts (id int PRIMARY KEY, content text);
ALTER TABLE scripts ALTER COLUMN content SET STORAGE EXTERNAL;
INSERT INTO scripts SELECT i, repeat('Get-ChildItem -Recurse ' || i, 200) FROM generate_series(1, 1500) i;
--! twin
CREATE TABLE scripts (id int PRIMARY KEY, content text);
INSERT INTO scripts SELECT i, repeat('Get-ChildItem -Recurse ' || i, 200) FROM generate_series(1, 1500) i;

--! table-bloat: public.was_large
CREATE TABLE was_large (id int PRIMARY KEY, filler text) WITH (autovacuum_enabled = on);
INSERT INTO was_large SELECT i, repeat('x', 700) FROM generate_series(1, 80000) i;
DELETE FROM was_large WHERE id % 10 <> 0;
SELECT pg_stat_force_next_flush();
VACUUM was_large;
--! twin
CREATE TABLE was_large (id int PRIMARY KEY, filler text);
INSERT INTO was_large SELECT i, repeat('x', 700) FROM generate_series(1, 60000) i;

--! autovacuum-behind: public.queue
CREATE TABLE queue (id int PRIMARY KEY, todo text) WITH (autovacuum_enabled = off);
INSERT INTO queue SELECT i, 'x' FROM generate_series(1, 20000) i;
DELETE FROM queue WHERE id > 3000;
--! twin
CREATE TABLE queue (id int PRIMARY KEY, todo text);
INSERT INTO queue SELECT i, 'x' FROM generate_series(1, 20000) i;
DELETE FROM queue WHERE id > 3000;
SELECT pg_stat_force_next_flush();
VACUUM queue;

--! timestamp-without-zone: public.visits
CREATE TABLE visits (id int PRIMARY KEY, happened timestamp);
INSERT INTO visits SELECT i, now() FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE visits (id int PRIMARY KEY, happened timestamptz, day date);
INSERT INTO visits SELECT i, now(), now() FROM generate_series(1, 2000) i;

--! timestamp-names-mixed: public.visits."endedAt"
--! also identifier-needs-quoting:public.visits."endedAt"
CREATE TABLE visits (id int PRIMARY KEY, created_at timestamptz, started_at timestamptz, "endedAt" timestamptz);
INSERT INTO visits SELECT i FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE visits (id int PRIMARY KEY, created_at timestamptz, started_at timestamptz, ended_at timestamptz);
INSERT INTO visits SELECT i FROM generate_series(1, 2000) i;

--! identifier-needs-quoting: public.visits."dayOfWeek"
CREATE TABLE visits (id int PRIMARY KEY, "dayOfWeek" int);
--! twin
CREATE TABLE visits (id int PRIMARY KEY, position int, "größe" int, time time);

--! comments-missing: public
CREATE TABLE a (id int PRIMARY KEY, weight int);
COMMENT ON TABLE a IS 'things';
CREATE TABLE b (id int PRIMARY KEY, weight int);
--! twin
CREATE TABLE a (id int PRIMARY KEY, weight int);
COMMENT ON TABLE a IS 'things';
COMMENT ON COLUMN a.weight IS 'in grams';

--! type-discouraged: public char(n) | public json | public money
CREATE TABLE goods (id int PRIMARY KEY, properties json, price money, code char(10));
--! twin
CREATE TABLE goods (id int PRIMARY KEY, properties jsonb, price numeric(19, 2), code varchar(10), country char(2));

--! unlogged-rows: public.balances
CREATE UNLOGGED TABLE balances (id int PRIMARY KEY);
INSERT INTO balances SELECT generate_series(1, 10);
--! twin
CREATE UNLOGGED TABLE balances (id int PRIMARY KEY);
CREATE TABLE real_balances (id int PRIMARY KEY);
INSERT INTO real_balances SELECT generate_series(1, 10);

--! trigger-disabled: public.bills of_customer | public.counted count_it
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE counted (id int PRIMARY KEY);
CREATE TRIGGER count_it BEFORE INSERT ON counted FOR EACH ROW EXECUTE FUNCTION count_it();
ALTER TABLE counted DISABLE TRIGGER count_it;
CREATE TABLE customers (id bigint PRIMARY KEY);
CREATE TABLE bills (id bigint PRIMARY KEY, customer_id bigint CONSTRAINT of_customer REFERENCES customers ON DELETE RESTRICT);
CREATE INDEX ON bills (customer_id);
ALTER TABLE bills DISABLE TRIGGER ALL;
--! twin
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE counted (id int PRIMARY KEY);
CREATE TRIGGER count_it BEFORE INSERT ON counted FOR EACH ROW EXECUTE FUNCTION count_it();
ALTER TABLE counted ENABLE ALWAYS TRIGGER count_it;

--! row-security-off: public.notes
CREATE TABLE notes (id int PRIMARY KEY, owner name NOT NULL);
CREATE POLICY own_notes ON notes USING (owner = current_user);
--! twin
CREATE TABLE notes (id int PRIMARY KEY, owner name NOT NULL);
CREATE POLICY own_notes ON notes USING (owner = current_user);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;

--! row-security-no-policy: public.secrets
CREATE TABLE secrets (id int PRIMARY KEY);
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON secrets TO reader;
--! twin
CREATE TABLE secrets (id int PRIMARY KEY);
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;

--! row-security-not-forced: public.tenants
CREATE TABLE tenants (id int PRIMARY KEY, owner name NOT NULL);
ALTER TABLE tenants OWNER TO app;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenants ON tenants USING (owner = current_user);
--! twin
CREATE TABLE tenants (id int PRIMARY KEY, owner name NOT NULL);
ALTER TABLE tenants OWNER TO app;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenants ON tenants USING (owner = current_user);

--! row-security-by-view: public.all_accounts
CREATE TABLE accounts (id int PRIMARY KEY, owner name NOT NULL);
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_accounts ON accounts USING (owner = current_user);
CREATE VIEW all_accounts AS SELECT * FROM accounts;
GRANT SELECT ON accounts, all_accounts TO reader;
--! twin
CREATE TABLE accounts (id int PRIMARY KEY, owner name NOT NULL);
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_accounts ON accounts USING (owner = current_user);
CREATE VIEW all_accounts WITH (security_invoker = on) AS SELECT * FROM accounts;
CREATE VIEW private_accounts AS SELECT * FROM accounts;
GRANT SELECT ON accounts, all_accounts TO reader;

--! security-definer-search-path: public.reset_password(who text)
CREATE FUNCTION reset_password(who text) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT';
--! twin
CREATE FUNCTION reset_password(who text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT';
CREATE FUNCTION harmless(who text) RETURNS void LANGUAGE sql AS 'SELECT';

--! public-can-write: public.open
CREATE TABLE open (id int PRIMARY KEY);
GRANT SELECT, INSERT ON open TO PUBLIC;
--! twin
CREATE TABLE open (id int PRIMARY KEY);
GRANT SELECT ON open TO PUBLIC;
GRANT INSERT ON open TO reader;

--! public-can-create: shared
CREATE SCHEMA shared;
GRANT USAGE, CREATE ON SCHEMA shared TO PUBLIC;
--! twin
CREATE SCHEMA shared;
GRANT USAGE ON SCHEMA shared TO PUBLIC;
GRANT CREATE ON SCHEMA shared TO app;

--! vector-unindexed: public.embeddings(embedding)
CREATE EXTENSION vector;
CREATE TABLE embeddings (id int PRIMARY KEY, embedding vector(3));
INSERT INTO embeddings SELECT i, ARRAY[i, i % 7, i % 11]::vector FROM generate_series(1, 3000) i;
--! twin
CREATE EXTENSION vector;
CREATE TABLE embeddings (id int PRIMARY KEY, embedding vector(3));
INSERT INTO embeddings SELECT i, ARRAY[i, i % 7, i % 11]::vector FROM generate_series(1, 3000) i;
CREATE INDEX ON embeddings USING hnsw (embedding vector_l2_ops);

--! ivfflat-lists: public.embeddings_lists
CREATE EXTENSION vector;
CREATE TABLE embeddings (id int PRIMARY KEY, embedding vector(3));
INSERT INTO embeddings SELECT i, ARRAY[i, i % 7, i % 11]::vector FROM generate_series(1, 3000) i;
CREATE INDEX embeddings_lists ON embeddings USING ivfflat (embedding vector_l2_ops) WITH (lists = 1000);
--! twin
CREATE EXTENSION vector;
CREATE TABLE embeddings (id int PRIMARY KEY, embedding vector(3));
INSERT INTO embeddings SELECT i, ARRAY[i, i % 7, i % 11]::vector FROM generate_series(1, 3000) i;
CREATE INDEX embeddings_lists ON embeddings USING ivfflat (embedding vector_l2_ops) WITH (lists = 10);

--! extension-cve: vector CVE-2026-3172
CREATE EXTENSION vector;
UPDATE pg_extension SET extversion = '0.8.0' WHERE extname = 'vector';
--! twin
CREATE EXTENSION vector;
UPDATE pg_extension SET extversion = '0.9.9' WHERE extname = 'vector';

--! collation-version: collation public.german
CREATE COLLATION german (provider = builtin, locale = 'C.UTF-8');
CREATE TABLE words (id int PRIMARY KEY, word text COLLATE german);
CREATE INDEX words_word ON words (word);
UPDATE pg_collation SET collversion = '0' WHERE collname = 'german';
--! twin
CREATE COLLATION german (provider = builtin, locale = 'C.UTF-8');
CREATE TABLE words (id int PRIMARY KEY, word text COLLATE german);
UPDATE pg_collation SET collversion = '0' WHERE collname = 'german';

--! detach-pending: public.events_1
CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'events_1'::regclass;
--! twin
CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
ALTER TABLE events DETACH PARTITION events_1;

--! healthy
-- What a careful person makes of PSScript's shape: nothing is to be said of it.
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';
CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz);
CREATE TABLE categories (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE scripts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint NOT NULL REFERENCES users ON DELETE RESTRICT, category_id bigint REFERENCES categories ON DELETE SET NULL,
    title varchar(200) NOT NULL, content text, file_hash text NOT NULL UNIQUE, tags text[], properties jsonb, is_public bool NOT NULL DEFAULT false, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz
);
CREATE INDEX ON scripts (user_id, created_at);
CREATE INDEX ON scripts (category_id) WHERE category_id IS NOT NULL;
CREATE INDEX ON scripts USING gin (tags);
CREATE TABLE analyses (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, script_id bigint NOT NULL UNIQUE REFERENCES scripts ON DELETE CASCADE, score numeric(4, 1), created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE versions (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, script_id bigint NOT NULL REFERENCES scripts ON DELETE CASCADE, number int NOT NULL, UNIQUE (script_id, number));
CREATE TABLE execution_logs (id bigint GENERATED ALWAYS AS IDENTITY, script_id bigint REFERENCES scripts ON DELETE SET NULL, status text, created_at timestamptz NOT NULL, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
CREATE INDEX ON execution_logs (script_id);
SELECT format('CREATE TABLE execution_logs_%s PARTITION OF execution_logs FOR VALUES FROM (%L) TO (%L)', n, date_trunc('day', now()) + make_interval(days => n * 30 - 90), date_trunc('day', now()) + make_interval(days => n * 30 - 60)) FROM generate_series(0, 6) n \gexec
CREATE TRIGGER touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER touch BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO users (name) SELECT 'user ' || i FROM generate_series(1, 2000) i;
INSERT INTO categories (name) SELECT 'category ' || i FROM generate_series(1, 20) i;
INSERT INTO scripts (user_id, category_id, title, content, file_hash, tags, properties, is_public) SELECT 1 + i % 2000, nullif(i % 21, 0), 'Script ' || i, repeat('Get-Item ', i % 200), md5(i::text), ARRAY['a' || i % 7], jsonb_build_object('a', i), i % 3 = 0 FROM generate_series(1, 6000) i;
INSERT INTO analyses (script_id, score) SELECT id, 1 FROM scripts;
INSERT INTO versions (script_id, number) SELECT id, v FROM scripts, generate_series(1, 3) v WHERE id % 2 = 0 OR v = 1;
INSERT INTO execution_logs (script_id, status, created_at) SELECT 1 + i % 6000, 'ok', now() - make_interval(mins => i) FROM generate_series(1, 30000) i;

--! durability-off: fsync
--! also server-outdated:minor
--! also checksums-off:data_checksums
CREATE TABLE filler (id int PRIMARY KEY, filler text);
INSERT INTO filler SELECT i, repeat('x', 1000) FROM generate_series(1, 100000) i;
--! twin
CREATE TABLE filler (id int PRIMARY KEY, filler text);

--! replication-role-replica: role app
SELECT format('ALTER ROLE app IN DATABASE %I SET session_replication_role = replica', current_database()) \gexec
--! twin
SELECT format('ALTER ROLE app IN DATABASE %I SET session_replication_role = origin', current_database()) \gexec

--! password-not-scram: old_login
SET password_encryption = 'md5';
CREATE ROLE old_login LOGIN PASSWORD 'x';
--! undo
DROP ROLE old_login;
--! twin
CREATE ROLE new_login LOGIN PASSWORD 'x';
--! undo
DROP ROLE new_login;

--! prepared-transaction-old: forgotten
--! keys idle_after = "1s"
CREATE TABLE t (id int PRIMARY KEY);
BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'forgotten';
SELECT pg_sleep(1.2);
--! undo
ROLLBACK PREPARED 'forgotten';
--! twin
CREATE TABLE t (id int PRIMARY KEY);
BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'kept';
COMMIT PREPARED 'kept';

--! idle-in-transaction: postgres web N
--! keys idle_after = "1s"
--! session BEGIN; SELECT 1;
--! also superuser-application:postgres web N
SELECT pg_sleep(1.5);
--! twin
--! session SELECT 1;
--! also superuser-application:postgres web N
SELECT pg_sleep(1.5);

--! superuser-application: postgres web N
--! session SELECT 1;
SELECT pg_sleep(0.2);
--! twin
SELECT 1;

--! sequential-scans: public.read_whole
CREATE TABLE read_whole (id int PRIMARY KEY, filler text);
INSERT INTO read_whole SELECT i, repeat('x', 450) FROM generate_series(1, 40000) i;
DO $$ BEGIN FOR i IN 1..300 LOOP PERFORM count(*) FROM read_whole WHERE filler = 'y'; END LOOP; END $$;
SELECT pg_stat_force_next_flush();
--! twin
CREATE TABLE looked_up (id int PRIMARY KEY, filler text);
INSERT INTO looked_up SELECT i, repeat('x', 450) FROM generate_series(1, 40000) i;
ANALYZE looked_up;
DO $$ BEGIN FOR i IN 1..300 LOOP PERFORM filler FROM looked_up WHERE id = i; PERFORM FROM looked_up LIMIT 1; END LOOP; END $$;
SELECT pg_stat_force_next_flush();

--! btree-on-array: public.posts_tags | public.posts_body
CREATE TABLE posts (id int PRIMARY KEY, tags text[], body jsonb);
CREATE INDEX posts_tags ON posts (tags);
CREATE INDEX posts_body ON posts (body);
INSERT INTO posts SELECT i, ARRAY[i::text], '{}' FROM generate_series(1, 2000) i;
--! twin
CREATE TABLE posts (id int PRIMARY KEY, tags text[] UNIQUE, body jsonb);
CREATE INDEX posts_tags ON posts USING gin (tags);
CREATE INDEX posts_body ON posts ((body ->> 'title'));
INSERT INTO posts SELECT i, ARRAY[i::text], '{}' FROM generate_series(1, 2000) i;

--! index-bloat: public.events_word
--! also durability-off:fsync
--! also server-outdated:minor
--! also table-bloat:public.events
CREATE TABLE events (id int PRIMARY KEY, word text);
INSERT INTO events SELECT i, repeat('w', 90) || i FROM generate_series(1, 600000) i;
CREATE INDEX events_word ON events (word);
DELETE FROM events WHERE id % 3 <> 0;
SELECT pg_stat_force_next_flush();
VACUUM events;
--! twin
--! also durability-off:fsync
--! also server-outdated:minor
CREATE TABLE events (id int PRIMARY KEY, word text);
INSERT INTO events SELECT i, repeat('w', 90) || i FROM generate_series(1, 400000) i;
CREATE INDEX events_word ON events (word);

--! statistics-missing: public.readings
--! unanalyzed
CREATE TABLE readings (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE readings_1 PARTITION OF readings FOR VALUES FROM (0) TO (1000000);
INSERT INTO readings SELECT generate_series(1, 20000);
ANALYZE readings_1;
--! twin
CREATE TABLE readings (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE readings_1 PARTITION OF readings FOR VALUES FROM (0) TO (1000000);
INSERT INTO readings SELECT generate_series(1, 20000);
ANALYZE readings;

--! policy-always-true: public.open p
CREATE TABLE open (id int PRIMARY KEY, owner name);
ALTER TABLE open ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON open USING (true);
CREATE POLICY own ON open USING (owner = current_user);
GRANT SELECT, UPDATE ON open TO reader;
--! twin
CREATE TABLE open (id int PRIMARY KEY, owner name);
ALTER TABLE open ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON open FOR SELECT USING (true);
CREATE POLICY own ON open FOR UPDATE USING (owner = current_user);
CREATE POLICY of_app ON open TO app USING (true);
GRANT SELECT, UPDATE ON open TO reader;

--! fk-partly-null: public.books on_shelf
CREATE TABLE shelves (room int, number int, PRIMARY KEY (room, number));
INSERT INTO shelves VALUES (1, 1);
CREATE TABLE books (id int PRIMARY KEY, room int, shelf int, CONSTRAINT on_shelf FOREIGN KEY (room, shelf) REFERENCES shelves ON DELETE RESTRICT);
CREATE INDEX ON books (room, shelf);
INSERT INTO books VALUES (1, 1, 1), (2, 7, NULL);
--! twin
CREATE TABLE shelves (room int, number int, PRIMARY KEY (room, number));
INSERT INTO shelves VALUES (1, 1);
CREATE TABLE books (id int PRIMARY KEY, room int NOT NULL, shelf int, CONSTRAINT on_shelf FOREIGN KEY (room, shelf) REFERENCES shelves ON DELETE RESTRICT);
CREATE INDEX ON books (room, shelf);
INSERT INTO books VALUES (1, 1, 1), (2, 7, NULL);

--! archiving-fails: archiver
SELECT pg_stat_reset_shared('archiver');
ALTER SYSTEM SET archive_command = 'false';
SELECT pg_reload_conf();
SELECT pg_logical_emit_message(false, 'x', 'y');
SELECT pg_switch_wal();
SELECT pg_sleep(3);
--! undo
ALTER SYSTEM SET archive_command = 'true';
SELECT pg_reload_conf();
--! twin
SELECT pg_logical_emit_message(false, 'x', 'y');
SELECT pg_switch_wal();
SELECT pg_sleep(3);

--! slot-inactive: forgotten
--! keys idle_after = "1s"
SELECT pg_create_physical_replication_slot('forgotten', true);
SELECT pg_sleep(1.2);
--! undo
SELECT pg_drop_replication_slot('forgotten');
--! twin
SELECT pg_create_physical_replication_slot('reserves_nothing');
SELECT pg_sleep(1.2);
--! undo
SELECT pg_drop_replication_slot('reserves_nothing');

--! transaction-long: postgres web N
--! keys idle_after = "200ms"
--! session SELECT pg_sleep(60);
--! also superuser-application:postgres web N
SELECT pg_sleep(1.5);
--! twin
--! session SELECT 1;
--! also superuser-application:postgres web N
SELECT pg_sleep(1.5);

--! password-encryption: password_encryption
ALTER SYSTEM SET password_encryption = 'md5';
SELECT pg_reload_conf();
SELECT pg_sleep(0.3);
--! undo
ALTER SYSTEM RESET password_encryption;
SELECT pg_reload_conf();
SELECT pg_sleep(0.3);
--! twin
SELECT 1;
