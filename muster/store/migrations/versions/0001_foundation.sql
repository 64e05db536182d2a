-- The record of what ran, where, with which inputs, why it failed and what it made.
-- Words are those of the design: run > batch > element > attempt; a wave of a batch is a submission.

CREATE TABLE run (
    id              text PRIMARY KEY,
    workflow        text NOT NULL,
    state           text NOT NULL DEFAULT 'open'
                    CHECK (state IN ('open', 'planned', 'succeeded', 'failed', 'cancelled')),
    params          jsonb NOT NULL,
    work_uri        text NOT NULL,
    interval_start  timestamptz,
    interval_end    timestamptz,
    facts           jsonb NOT NULL DEFAULT '{}',
    message         text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    planned_at      timestamptz,
    ended_at        timestamptz
);
CREATE INDEX run_created_at ON run (created_at);

CREATE TABLE batch (
    id                   text PRIMARY KEY,
    run_id               text NOT NULL REFERENCES run ON DELETE CASCADE,
    step                 text NOT NULL,
    group_name           text NOT NULL,
    backend              text NOT NULL CHECK (backend IN ('local', 'slurm', 'kubernetes')),
    pool                 text NOT NULL,
    spec                 jsonb NOT NULL,           -- batch.json, as frozen by the plan
    fingerprint          text NOT NULL,            -- sha256 of spec
    generation           integer NOT NULL DEFAULT 1 CHECK (generation >= 1),
    generation_started_at timestamptz NOT NULL DEFAULT now(),
    max_tries            integer,                  -- of the Airflow task; a clear raises it
    wave                 integer NOT NULL DEFAULT 0,
    claim                uuid,                     -- who may submit, record and cancel
    claimed_by           text,
    claimed_at           timestamptz,
    heartbeat_at         timestamptz,              -- the claimant's last sign of life
    cancel_requested_at  timestamptz,
    cancel_requested_by  text CHECK (cancel_requested_by IN ('kill', 'person', 'reconcile')),
    created_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX batch_run_id ON batch (run_id);

CREATE TABLE element (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id      text NOT NULL REFERENCES run ON DELETE CASCADE,
    batch_id    text REFERENCES batch ON DELETE CASCADE,   -- null: planned, and not to be run
    step        text NOT NULL,
    group_name  text NOT NULL,
    name        text NOT NULL,
    index       integer CHECK (index >= 0),
    generation  integer NOT NULL DEFAULT 1,
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN (
                    'pending', 'running', 'reused', 'not_asked',
                    'succeeded', 'missing_input', 'invalid_input', 'software_error', 'transient',
                    'out_of_memory', 'timed_out', 'node_failed', 'preempted', 'cancelled',
                    'superseded', 'lost')),
    reason      text,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (run_id, step, name),
    UNIQUE (batch_id, index) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX element_run_state ON element (run_id, state);

CREATE TABLE submission (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id      text NOT NULL REFERENCES batch ON DELETE CASCADE,
    wave          integer NOT NULL,
    key           text NOT NULL UNIQUE,            -- in the job's name: what a crash is survived by
    fingerprint   text NOT NULL,                   -- of the batch as it was submitted
    state         text NOT NULL DEFAULT 'intended'
                  CHECK (state IN ('intended', 'submitted', 'ended')),
    claim         uuid NOT NULL,
    reference     text,                            -- the scheduler's own id
    intended_at   timestamptz NOT NULL DEFAULT now(),
    submitted_at  timestamptz,
    cancelled_at  timestamptz,                     -- when we cancelled it ourselves
    ended_at      timestamptz
);
CREATE UNIQUE INDEX submission_one_open ON submission (batch_id, wave) WHERE state <> 'ended';
CREATE INDEX submission_batch_id ON submission (batch_id);

CREATE TABLE attempt (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    element_id     bigint NOT NULL REFERENCES element ON DELETE CASCADE,
    submission_id  bigint NOT NULL REFERENCES submission ON DELETE CASCADE,
    number         integer NOT NULL CHECK (number >= 1),
    generation     integer NOT NULL,
    state          text NOT NULL DEFAULT 'planned'
                   CHECK (state IN ('planned', 'submitted', 'running', 'ended')),
    outcome        text CHECK (outcome IN (
                       'succeeded', 'missing_input', 'invalid_input', 'software_error', 'transient',
                       'out_of_memory', 'timed_out', 'node_failed', 'preempted', 'cancelled',
                       'superseded', 'lost')),
    resources      jsonb NOT NULL,
    exit_code      integer,
    signal         integer,
    host           text,
    seconds        double precision,
    max_rss_mib    double precision,
    error_class    text,
    message        text,
    facts          jsonb NOT NULL DEFAULT '{}',
    log_uri        text,
    planned_at     timestamptz NOT NULL DEFAULT now(),
    submitted_at   timestamptz,
    started_at     timestamptz,
    missing_since  timestamptz,                    -- seen by nobody since
    ended_at       timestamptz,
    UNIQUE (element_id, number),
    CHECK ((state = 'ended') = (outcome IS NOT NULL)),
    CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX attempt_submission_id ON attempt (submission_id);
CREATE INDEX attempt_open ON attempt (element_id) WHERE state <> 'ended';

CREATE TABLE artifact (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    attempt_id  bigint NOT NULL REFERENCES attempt ON DELETE CASCADE,
    name        text NOT NULL,
    uri         text NOT NULL,
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes       bigint NOT NULL CHECK (bytes >= 0),
    media_type  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (attempt_id, name)
);
CREATE INDEX artifact_uri ON artifact (uri);

CREATE TABLE event (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id      text NOT NULL REFERENCES run ON DELETE CASCADE,
    batch_id    text REFERENCES batch ON DELETE CASCADE,
    kind        text NOT NULL,
    message     text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX event_run_id ON event (run_id, id);
CREATE INDEX event_batch_id ON event (batch_id);

-- An attempt moves forward only, and what has ended stays as it ended, whoever writes.
CREATE FUNCTION attempt_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ranks CONSTANT jsonb := '{"planned": 0, "submitted": 1, "running": 2, "ended": 3}';
BEGIN
    IF OLD.state = 'ended' AND (NEW.state, NEW.outcome) IS DISTINCT FROM (OLD.state, OLD.outcome) THEN
        RAISE EXCEPTION 'attempt % has ended as % and cannot become % %',
            OLD.id, OLD.outcome, NEW.state, coalesce(NEW.outcome, '') USING ERRCODE = 'MU001';
    END IF;
    IF (ranks ->> NEW.state)::int < (ranks ->> OLD.state)::int THEN
        RAISE EXCEPTION 'attempt % cannot go from % back to %',
            OLD.id, OLD.state, NEW.state USING ERRCODE = 'MU001';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER attempt_moves_forward BEFORE UPDATE ON attempt
    FOR EACH ROW EXECUTE FUNCTION attempt_moves_forward();
