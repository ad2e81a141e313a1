-- For who looks for people: contacts by how their name begins, and how many of a campaign are being tried again.
-- A column, because under row-level security an index on lower(name) would not be used: only what cannot tell a stranger's rows
-- apart (comparing does not, lower() might) is looked up before it is known whose a row is.
ALTER TABLE contacts ADD COLUMN name_key text COLLATE "C" GENERATED ALWAYS AS (lower(name)) STORED;
CREATE INDEX contacts_by_name ON contacts (tenant_id, name_key, id) WHERE name_key IS NOT NULL;

-- As counted when it was asked for; meaningless unless retry_asked_at is set.
ALTER TABLE campaigns ADD COLUMN retry_people bigint;
