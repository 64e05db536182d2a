-- A cluster is looked at by one process for all, at most so often; the others read what it saw.

CREATE TABLE cluster (
    name            text PRIMARY KEY,
    looked_at       timestamptz,                   -- when the newest look that was answered began
    asked_at        timestamptz,                   -- when the newest look began, answered or not
    seen            bytea,                         -- what it saw, compressed
    trouble         text,                          -- why the last look was not answered
    trouble_since   timestamptz,
    next_submit_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE cluster_call (
    cluster         text NOT NULL REFERENCES cluster ON DELETE CASCADE,
    command         text NOT NULL,
    calls           bigint NOT NULL DEFAULT 0,
    failures        bigint NOT NULL DEFAULT 0,     -- of which were not answered
    seconds         double precision NOT NULL DEFAULT 0,
    last_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, command)
);

ALTER TABLE batch
    ADD COLUMN degraded        text,               -- what does not answer, while it does not
    ADD COLUMN degraded_since  timestamptz,
    ADD COLUMN detached        boolean NOT NULL DEFAULT false;  -- submitted to be left alone

ALTER TABLE attempt
    ADD COLUMN log_told        bigint NOT NULL DEFAULT 0;       -- bytes of its log that were told
