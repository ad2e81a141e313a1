-- What a report or a refusal leads to beyond its message: an account that a report took down is not back because the next message was
-- taken, which says no more than it said before; and a campaign whose template was blocked says why it is paused.
SET LOCAL lock_timeout = '5s';
ALTER TABLE channel_accounts ADD COLUMN down_by_report boolean NOT NULL DEFAULT false;
ALTER TABLE campaigns
    ADD COLUMN paused_code text,
    ADD COLUMN paused_reason text;
-- As domain::outcome::Aftermath, for whoever ties the report to its send; NULL: nothing follows.
ALTER TABLE parked_reports ADD COLUMN aftermath jsonb;
-- Whoever may says over the API that an account is back.
GRANT UPDATE (state, down_code, down_reason, down_at, down_by_report, state_told_at, probes, probe_at, probe_with) ON channel_accounts TO mijra_api;
