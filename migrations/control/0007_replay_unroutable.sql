-- A webhook that nobody could be given is played again as what it was: with the account whose secret had signed it, which may speak
-- for its own tenant only, and with the query of its URL. Of rows of before that is not known: they can be looked at.
ALTER TABLE control.unroutable ADD COLUMN meta jsonb;

-- What a replay publishes again is in the log, too: a copy of a large body is wanted only until the job that refers to it is done.
ALTER TABLE control.large_bodies ADD COLUMN keep_until timestamptz NOT NULL DEFAULT now() + interval '14 days';
UPDATE control.large_bodies SET keep_until = stored_at + interval '14 days';
DROP INDEX control.large_bodies_stored_at;
CREATE INDEX large_bodies_keep_until ON control.large_bodies (keep_until);
