-- By contact first: an index that begins with the tenant seemed good enough for looking a name up while the table was small,
-- and then every name of the tenant was read for each.
DROP INDEX contact_aliases_by_contact;
CREATE INDEX contact_aliases_by_contact ON contact_aliases (contact_id);
