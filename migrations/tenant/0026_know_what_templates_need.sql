-- What a template needs at each sending, as domain::templates::Needs reads it; NULL: not fetched since this is known. That we cannot give
-- it what it needs used to stand in its status, where the provider's next word about it wiped it out.
ALTER TABLE templates ADD COLUMN needs jsonb;
-- The table's owner is isolated, too, but for this.
ALTER TABLE templates NO FORCE ROW LEVEL SECURITY;
UPDATE templates
SET needs = jsonb_build_object('variables', variables, 'beyond_us', substr(status, 14)), status = 'APPROVED'
WHERE status LIKE 'UNSUPPORTED: %';
ALTER TABLE templates FORCE ROW LEVEL SECURITY;
