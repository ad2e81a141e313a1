-- Webhooks of the log can be named to be played again. Their provider is a word that a scheduler of an earlier release does not know:
-- it leaves such replays to a newer one.
SET LOCAL lock_timeout = '5s';
ALTER TABLE webhook_replays
    -- These alone, each with the time at which it was received: together they are its place in the log.
    ADD COLUMN webhook_ids uuid[],
    ADD COLUMN webhook_times timestamptz[],
    ADD CONSTRAINT webhook_replays_named CHECK (
        (webhook_ids IS NULL) = (webhook_times IS NULL)
        AND (webhook_ids IS NULL OR cardinality(webhook_ids) > 0 AND cardinality(webhook_ids) = cardinality(webhook_times))
    );
