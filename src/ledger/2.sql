CREATE TABLE pgtend.messages (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target   text NOT NULL,
    event    jsonb NOT NULL,
    tick     timestamptz,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    next_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at  timestamptz,
    error    text,
    UNIQUE (target, tick)
);
COMMENT ON TABLE pgtend.messages IS 'what is to be told, and was: whoever sends takes all that waits for a place, in one message';
COMMENT ON COLUMN pgtend.messages.target IS 'the name of [notify.NAME]';
COMMENT ON COLUMN pgtend.messages.tick IS 'the tick of a digest, which is sent once';
COMMENT ON COLUMN pgtend.messages.next_at IS 'not before this is it tried again: somebody sends it, or the last attempt failed';
COMMENT ON COLUMN pgtend.messages.error IS 'why the last attempt failed';

CREATE INDEX messages_that_wait ON pgtend.messages (target, id) WHERE sent_at IS NULL;

CREATE TABLE pgtend.told (
    job        text NOT NULL,
    database   text NOT NULL,
    failed     boolean NOT NULL DEFAULT false,
    late_since timestamptz,
    PRIMARY KEY (job, database)
);
COMMENT ON TABLE pgtend.told IS 'how each job stands by what was told of it: a change is told once, by whichever process notices it';
