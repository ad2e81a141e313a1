-- Webhooks of the log can be named to be played again. A scheduler of an earlier release plays all between the first of them and the
-- last, which changes nothing that is there.
ALTER TABLE webhook_replays
    -- These alone, each with the time at which it was received: together they are its place in the log.
    ADD COLUMN webhook_ids uuid[],
    ADD COLUMN webhook_times timestamptz[],
    ADD CONSTRAINT webhook_replays_named CHECK (
        cardinality(webhook_ids) > 0 AND cardinality(webhook_ids) = cardinality(webhook_times)
        OR webhook_ids IS NULL AND webhook_times IS NULL
    );
