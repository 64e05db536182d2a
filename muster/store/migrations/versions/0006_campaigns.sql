-- A campaign spans runs; an element's coordinates say where it stands in all of them.
-- The state of a coordinate is that of the element of the newest run that has one there.

CREATE TABLE campaign (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL CHECK (name <> ''),
    version         text NOT NULL CHECK (version <> ''),
    folder          text NOT NULL UNIQUE,          -- URI of VERSION_NAME, without a slash at its end
    config          jsonb NOT NULL,                -- the campaign file, as it was validated
    config_sha256   text NOT NULL CHECK (config_sha256 ~ '^[0-9a-f]{64}$'),  -- of what may not change
    provenance      jsonb NOT NULL DEFAULT '{}',
    descends_from   text,                          -- VERSION_NAME of the campaign it was changed from
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, version)
);

-- What has run goes by it: a change is a new version.  Further realizations may join.
CREATE FUNCTION campaign_is_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.name, NEW.version, NEW.config_sha256, NEW.created_at)
       IS DISTINCT FROM (OLD.name, OLD.version, OLD.config_sha256, OLD.created_at) THEN
        RAISE EXCEPTION 'campaign % % cannot be changed; make a new version', OLD.version, OLD.name
            USING ERRCODE = 'MU001';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER campaign_is_immutable BEFORE UPDATE ON campaign
    FOR EACH ROW EXECUTE FUNCTION campaign_is_immutable();

ALTER TABLE run ADD COLUMN campaign_id bigint REFERENCES campaign;
CREATE INDEX run_campaign ON run (campaign_id, created_at);

ALTER TABLE element
    ADD COLUMN realization integer CHECK (realization >= 0),
    ADD COLUMN redshift    double precision CHECK (redshift >= 0 AND redshift < 'infinity'),
    ADD COLUMN trait       text,
    ADD COLUMN dataset     text,
    ADD COLUMN month       text CHECK (month ~ '^\d{4}(-(0[1-9]|1[0-2]))?$');
CREATE INDEX element_realization ON element (realization, redshift) WHERE realization IS NOT NULL;
CREATE INDEX element_trait ON element (trait) WHERE trait IS NOT NULL;
CREATE INDEX element_dataset ON element (dataset) WHERE dataset IS NOT NULL;
