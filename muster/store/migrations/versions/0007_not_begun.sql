-- An attempt whose job ended before its turn came: nobody's fault, and nothing was tried.
ALTER TABLE attempt DROP CONSTRAINT attempt_outcome_check;
ALTER TABLE attempt ADD CONSTRAINT attempt_outcome_check CHECK (outcome IN (
    'succeeded', 'missing_input', 'invalid_input', 'software_error', 'transient', 'out_of_memory',
    'timed_out', 'node_failed', 'preempted', 'cancelled', 'superseded', 'lost', 'not_begun'));
