-- What Airflow has made of a batch's pod: each wave of the generation is submitted with it.

CREATE TABLE batch_pod (
    batch_id    text NOT NULL REFERENCES batch ON DELETE CASCADE,
    generation  integer NOT NULL CHECK (generation >= 1),
    template    json NOT NULL,                     -- as rendered: jsonb would order its keys anew
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (batch_id, generation)
);
