-- Counts up whenever an operator sets an account up anew or brings it back: what a call finds out about an account holds for
-- the revision it was made with, so a late refusal of an old token cannot take down the account that has a new one.
ALTER TABLE channel_accounts ADD COLUMN revision int NOT NULL DEFAULT 1;
