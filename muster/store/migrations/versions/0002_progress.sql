-- How far an attempt is, by its own word, and when it expects to be done.
-- What has ended has no eta_at; progress and progress_message of what failed say how far it came.

ALTER TABLE attempt
    ADD COLUMN progress          double precision CHECK (progress >= 0 AND progress <= 1),
    ADD COLUMN progress_message  text,
    ADD COLUMN progress_at       timestamptz,      -- when the job said so, by its own clock
    ADD COLUMN eta_at            timestamptz;
