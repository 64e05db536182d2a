-- Datasets on the target grid: what each is made from, and where its pixels lie.
-- A load is written beside what is there, window by window, and takes its place when it is whole.

CREATE SCHEMA resampled;
COMMENT ON SCHEMA resampled IS 'Tables of rows that Muster''s resampling made, one a dataset';

CREATE TABLE dataset (
    key             text PRIMARY KEY,              -- the name, with @2024-03 where it is of a month
    name            text NOT NULL,
    interval_label  text,
    run_id          text,                          -- no reference: the dataset outlives its run
    layer           jsonb NOT NULL,
    fingerprint     text NOT NULL,                 -- of all that the values are made from
    kind            text NOT NULL CHECK (kind IN ('passthrough', 'block', 'warp')),
    reason          text NOT NULL,
    method          text NOT NULL,
    crs             text NOT NULL,
    transform       double precision[] NOT NULL CHECK (array_length(transform, 1) = 6),
    height          integer NOT NULL CHECK (height >= 1),
    width           integer NOT NULL CHECK (width >= 1),
    dtype           text NOT NULL CHECK (dtype IN (
                        'uint8', 'int16', 'uint16', 'int32', 'uint32', 'float32', 'float64')),
    nodata          double precision,              -- null: NaN
    recorded_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dataset_name ON dataset (name);

-- No reference to dataset: that is recorded when its first load is done.
CREATE TABLE load (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset         text NOT NULL,
    store           text NOT NULL CHECK (store IN ('tiles', 'rows')),
    fingerprint     text NOT NULL,
    staging         text,                          -- table in resampled that the rows go to
    state           text NOT NULL DEFAULT 'loading' CHECK (state IN ('loading', 'done')),
    claim           uuid,                          -- who may write; the newest only
    claimed_by      text,
    began_at        timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    CHECK ((state = 'done') = (ended_at IS NOT NULL))
);
CREATE UNIQUE INDEX load_one_open ON load (dataset, store) WHERE state = 'loading';
CREATE INDEX load_dataset ON load (dataset, store);

-- The ledger: a window is here when its pixels are there, as both are one transaction.
CREATE TABLE load_window (
    load            bigint NOT NULL REFERENCES load ON DELETE CASCADE,
    row             integer NOT NULL CHECK (row >= 0),
    col             integer NOT NULL CHECK (col >= 0),
    height          integer NOT NULL CHECK (height >= 1),
    width           integer NOT NULL CHECK (width >= 1),
    pixels          bigint NOT NULL CHECK (pixels >= 0),        -- of which with a value
    loaded_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (load, row, col)
);

CREATE TABLE holding (
    dataset         text NOT NULL REFERENCES dataset ON DELETE CASCADE,
    store           text NOT NULL CHECK (store IN ('register', 'tiles', 'rows', 'cog')),
    fingerprint     text NOT NULL,
    place           text NOT NULL,                 -- table in resampled, or URI
    load            bigint REFERENCES load,
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, store),
    CHECK ((store IN ('tiles', 'rows')) = (load IS NOT NULL))
);
CREATE INDEX holding_load ON holding (load);

CREATE TABLE tile (
    load            bigint NOT NULL REFERENCES load ON DELETE CASCADE,
    tile_row        integer NOT NULL CHECK (tile_row >= 0),
    tile_col        integer NOT NULL CHECK (tile_col >= 0),
    height          integer NOT NULL CHECK (height BETWEEN 1 AND 256),
    width           integer NOT NULL CHECK (width BETWEEN 1 AND 256),
    checksum        bigint NOT NULL CHECK (checksum BETWEEN 0 AND 4294967295),  -- CRC-32 of data
    data            bytea NOT NULL,                -- empty: no pixel has a value
    PRIMARY KEY (load, tile_row, tile_col)
);
-- Compressed already: Postgres would only try in vain.
ALTER TABLE tile ALTER COLUMN data SET STORAGE EXTERNAL;
