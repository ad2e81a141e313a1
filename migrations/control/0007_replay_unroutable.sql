-- A webhook that nobody could be given is played again as what it was: with the account whose secret had signed it, which may speak
-- for its own tenant only, and with the query of its URL. Of rows of before that is not known: they can be looked at.
ALTER TABLE control.unroutable ADD COLUMN meta jsonb;
