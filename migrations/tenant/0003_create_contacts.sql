-- People, and the names by which providers know them.
CREATE TABLE contacts (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text,
    username text,
    -- E.164, and what was typed.
    phone text CHECK (phone ~ '^\+[0-9]{7,15}$'),
    phone_raw text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);

-- An alias is looked up before anything else; its key is what keeps one person one contact. The foreign key waits for
-- the commit: whoever wins the alias then inserts the contact.
CREATE TABLE contact_aliases (
    tenant_id uuid NOT NULL,
    kind text NOT NULL,
    value text NOT NULL CHECK (value <> ''),
    contact_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, kind, value),
    FOREIGN KEY (tenant_id, contact_id) REFERENCES contacts (tenant_id, id) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX contact_aliases_by_contact ON contact_aliases (tenant_id, contact_id);

SELECT isolate_tenants(t) FROM unnest(ARRAY['contacts', 'contact_aliases']::regclass[]) t;
GRANT SELECT, INSERT, UPDATE ON contacts, contact_aliases TO mijra_api, mijra_worker;
