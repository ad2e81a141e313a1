-- Who our tenants are and in which database each one's data lives.
CREATE TABLE control.placements (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,31}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO control.placements (name) VALUES ('primary');

CREATE TABLE control.tenants (
    id uuid PRIMARY KEY,
    slug text NOT NULL CONSTRAINT tenants_slug_key UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name text NOT NULL,
    placement text NOT NULL DEFAULT 'primary' REFERENCES control.placements,
    created_at timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT ON control.placements, control.tenants TO mijra_api, mijra_worker, mijra_operator;
GRANT INSERT, UPDATE ON control.placements, control.tenants TO mijra_operator;
