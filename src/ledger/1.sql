-- Not IF NOT EXISTS, which asks for CREATE on the database even when the schema is there (pgtend grants makes it).
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'pgtend') THEN
        CREATE SCHEMA pgtend;
    END IF;
END
$$;

CREATE TABLE pgtend.format (
    version integer NOT NULL
);
COMMENT ON TABLE pgtend.format IS 'the number of this schema; pgtend refuses a higher one than it knows';

CREATE TABLE pgtend.runs (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job           text NOT NULL,
    database      text NOT NULL,
    task          text NOT NULL,
    trigger       text NOT NULL CHECK (trigger IN ('schedule', 'manual', 'catch-up', 'retry')),
    scheduled_for timestamptz,
    attempt       integer NOT NULL DEFAULT 1,
    retry_of      bigint,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    locked_at     timestamptz,
    heartbeat_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    progress      jsonb,
    cursor        jsonb,
    finished_at   timestamptz,
    outcome       text CHECK (outcome IN ('succeeded', 'skipped', 'failed', 'timed_out', 'cancelled', 'crashed')),
    report        jsonb,
    error         text,
    stderr        text,
    retries       integer NOT NULL DEFAULT 0,
    retry_at      timestamptz,
    host          text NOT NULL,
    pid           integer NOT NULL,
    version       text NOT NULL,
    UNIQUE (job, database, scheduled_for),
    UNIQUE (retry_of, attempt)
);
COMMENT ON TABLE pgtend.runs IS 'every run of every job: its row is written before it acts';
COMMENT ON COLUMN pgtend.runs.job IS 'the name of the job: its file without .toml';
COMMENT ON COLUMN pgtend.runs.database IS 'the name of the database in the configuration';
COMMENT ON COLUMN pgtend.runs.scheduled_for IS 'the tick that this run is; none for runs by hand and for retries';
COMMENT ON COLUMN pgtend.runs.retry_of IS 'the id of the first attempt';
COMMENT ON COLUMN pgtend.runs.locked_at IS 'when it took its lock: from then on it is the only run of its job on this database';
COMMENT ON COLUMN pgtend.runs.heartbeat_at IS 'the last sign of life while it runs';
COMMENT ON COLUMN pgtend.runs.cursor IS 'where the next run goes on; none when there is nothing to go on with';
COMMENT ON COLUMN pgtend.runs.outcome IS 'none while it runs';
COMMENT ON COLUMN pgtend.runs.retry_at IS 'when a further attempt is due; none when there is none, or when it has begun';

CREATE INDEX runs_of_a_job ON pgtend.runs (job, database, id DESC);
CREATE INDEX runs_by_start ON pgtend.runs (started_at);
CREATE INDEX runs_under_way ON pgtend.runs (id) WHERE outcome IS NULL;
CREATE INDEX runs_to_retry ON pgtend.runs (retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX runs_that_succeeded ON pgtend.runs (job, database, finished_at DESC) WHERE outcome = 'succeeded';

CREATE TABLE pgtend.schedules (
    job         text NOT NULL,
    database    text NOT NULL,
    schedule    text NOT NULL,
    known_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (job, database)
);
COMMENT ON TABLE pgtend.schedules IS 'since when each schedule is known: ticks before that were not missed';
