-- Whoever uploads a file to a provider says so first, so that nobody else does meanwhile.
-- Whoever waits behind a long transaction holds up everybody behind them: rather try again later.
SET LOCAL lock_timeout = '5s';
ALTER TABLE provider_files
    -- None while it is being uploaded; expires_at then says for how long whoever does so has it for themselves.
    ALTER COLUMN provider_file_id DROP NOT NULL;
