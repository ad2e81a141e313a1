-- What is taken back may have been edited before it came, or may never come: its edits are found by what they name. And reports that no
-- send ever had are not kept for ever.
--
-- On a large table the first index is made before, beside those who write (see the changelog).
SET LOCAL lock_timeout = '5s';
CREATE INDEX IF NOT EXISTS messages_edits ON messages (tenant_id, refers_to) WHERE kind = 'edit';
CREATE INDEX parked_reports_parked_at ON parked_reports (parked_at);
-- Two contacts become one, of whom a provider has told about the other.
GRANT INSERT ON contact_profiles TO mijra_api;
